"""The English of the coded messages of the portal and of the verbs that it calls on servers, by reason."""

# `{name}` is a parameter, `{count:key|keys}` a number with its noun, `{cause}` the text of another reason.
# Texts for everybody, or two: for the staff and for people.
_OWN: dict[str, str | tuple[str, str]] = {
    # connecting
    "connection_failed": (
        "Cannot connect to {address} port {port}: {detail}.",
        "The server cannot be reached ({detail}).",
    ),
    "connection_lost": ("The connection was lost ({detail}).", "The connection to the server was lost."),
    # pushes
    "held_back": (
        (
            "Waiting for confirmation: the push would remove {keys} of {of:key|keys} there ({people:person|people}). "
            "Staff decide in the admin, under Held-back pushes."
        ),
        "Waiting for confirmation by the lab's staff.",
    ),
    "superseded": "These keys were superseded by newer ones; the push is retried.",
    "interrupted": ("The worker stopped during the push; it is retried.", "The push was interrupted; it is retried."),
    "server_ahead": (
        (
            "The server is ahead of the database: its revision is not in it, as after restoring a backup. Keys are "
            "removed there, but none is added until staff decide: see manage.py adopt_server --help."
        ),
        "The portal's database does not know the server's last change of keys; the lab's staff must look at it.",
    ),
    "people_failed": "The keys of {count:person|people} could not be written.",
    "register_failed": "The keys of the register account could not be written.",
    # container jobs
    "locked_out": "The person was locked out.",
    "unlocked_meanwhile": "{name} was unlocked meanwhile and is not suspended.",
    # a host: revisions
    "revision_older": "Revision {revision} is older than {applied}, which the server has applied.",
    "revision_other_keys": "The server has applied revision {revision} with other keys.",
    "base_differs": "The server holds other keys than these changes are for.",
    "changes_refused": "The server did not accept the changed keys.",
    "result_differs": "The changes lead to other keys than the portal's.",
    # a host: one person's keys
    "key_malformed": "One of the keys is damaged.",
    "key_fields": "One of the keys is incomplete.",
    "key_refused": "{cause} The server refuses the key {fingerprint}.",
    "key_type": "The server does not allow keys of type {type}.",
    "key_size": "An RSA key has {bits} bits; {least} to {most} are allowed.",
    "key_shared": "Somebody else has one of these keys, too.",
    "keys_too_many": "{count:key is|keys are} too many; at most {most} are allowed.",
    "keys_not_recorded": "{cause} The server could not record the push; it is retried.",
    "keys_still_live": "The keys of {name} are still live on the server, and so is the login shell.",
    "other_person": (
        "The account on the server belongs to somebody else who had this user name before. Remove it first.",
        "The account on the server belongs to somebody else who had this user name before; ask the lab's staff.",
    ),
    "just_removed": "The account or container was just removed.",
    "ssh_folder_owner": "{name}/.ssh on the server does not belong to root. Register again.",
    "home_missing": "The home directory is missing.",
    # a host: its files
    "disk_full": ("The disk is full.", "The server's disk is full; ask the lab's staff to free space."),
    "disk_limit_reached": (
        "The person's disk limit is reached.",
        "Your disk limit is reached: delete files in the container.",
    ),
    "no_space_for_image": (
        "The server lacks {megabytes} MB for the disk image of the container: {detail}.",
        "The server's disk is too full for your container; ask the lab's staff to free space.",
    ),
    "image_not_mounted": "The disk image of the container cannot be mounted: {detail}.",
    "image_not_grown": "The disk image of the container cannot grow: {detail}.",
    "image_not_made": "The disk image of the container cannot be made: {detail}.",
    "template_missing": ("The template is missing.", "The server has no template for containers; ask the lab's staff."),
    # a host: containers
    "container_stopped": "The container stopped by itself: {detail}.",
    "no_account": "There is no account on the server that labhost created.",
    "no_container": "There is no container on the server.",
    "no_sshd": "The container is running, but its SSH server did not answer within {seconds} s.",
    "removal_incomplete": (
        "{cause} Not done yet: {left}. Start the job again.",
        "{cause} The removal is not complete.",
    ),
    "suspension_incomplete": (
        "{cause} Not done yet: {left}.",
        "{cause} The suspension is not complete.",
    ),
    "suspended": "{name} is suspended on the server. Unlock the account first.",
    "rolled_back": "{cause} The new container did not start; the old one was restored.",
    "subuid_changed": (
        "The portal now gives {name} other subordinate ids ({portal}) than the server knows ({known}).",
        "Your subordinate ids have changed; ask the lab's staff.",
    ),
    "wrong_address": "The container has the address {found} instead of {expected}. Restart it.",
    # a host: accounts and addresses
    "invalid_name": "{name} is not a valid user name.",
    "reserved_name": "The name {name} is reserved.",
    # a host: files, templates and snapshots
    "container_not_started": "The container did not start: {detail}.",
    "container_not_stopped": "The container did not stop: {detail}.",
    "disk_low": (
        "The disk is low: {megabytes} MB are needed.",
        "The server's disk is nearly full; ask the lab's staff to free space.",
    ),
    "files_in_use": ("{path} is in use: {problem}.", "The files are in use; try again."),
    "too_many_requests": "Too many requests of the portal are at work on the server; the next one is retried.",
    "lock_held": (
        "Another command is running on the server ({doing}).",
        "Another command is running on the server; try again in a minute.",
    ),
    "path_too_long": "The path {path} is longer than {most} bytes and could not be restored.",
    "snapshot_template_missing": "The snapshot needs the template {template}, which is no longer on the server.",
    # a host: its own commands
    "no_such_key": "The server knows no key of {target}.",
    "not_revoked": "No key of {target} is revoked by hand there.",
    "revocations_too_many": "More than {most} keys are revoked by hand there.",
    "no_terminal": "The command needs a terminal.",
    "not_confirmed": "Not confirmed; nothing was changed.",
    # the kinds of refusal of a host, where it names no reason
    "bad_frame": ("The request did not arrive whole.", "The request did not arrive whole; it is retried."),
    "stale_revision": "The server holds newer keys than these.",
    "other_history": "The server holds revision {revision} of the keys, which these do not replace.",
    "other_base": "The server holds other keys than these changes are for.",
    "busy": "The server is busy with another command for this person.",
    "partial": "Some keys could not be written.",
    "not_registered": "There is no account on this server.",
    "refused": "The server refused the request.",
    "portal_unavailable": "The server cannot read from the portal.",
}

# By what people read instead: texts for the staff.
_FOR_STAFF: dict[str, dict[str, str]] = {
    "The server cannot be reached.": {
        "unknown_address": "The name {address} has no address.",
        "no_common_algorithm": "The server offers no SSH algorithm that the portal uses ({detail}).",
        "no_host_key": "No SSH host key at {address} port {port} ({detail}).",
    },
    "The server does not answer in time.": {
        "no_answer": "No answer from {address} port {port}.",
        "timeout": "The server did not finish in time.",
    },
    "The portal cannot use this server yet; the lab's staff must finish its setup.": {
        "login_refused": "Login as {user} was refused. Check the account, its key or its password.",
        "portal_key_refused": "The server refuses the portal's key. Run manage.py deploy_server {server}.",
        "portal_key_missing": "The portal's SSH key {path} cannot be read ({detail}). Run manage.py create_portal_key.",
        "portal_key_invalid": "{path} is not an SSH key. Run manage.py create_portal_key --force.",
        "private_key_unusable": "The private key {path} cannot be used: {detail}.",
        "host_key_unknown": "No host key is pinned. Accept one first.",
        "host_key_offered": "No host key is pinned. The server shows {fingerprint}: compare it, then accept it.",
    },
    "The server's host key has changed; the lab's staff must check it.": {
        "host_key_changed": (
            "The host key has changed to {fingerprint}; nothing was sent. Compare it, then accept it in the admin."
        ),
        "host_key_type_changed": "The server shows a host key of another type; nothing was sent.",
    },
    "The server gave an answer that the portal does not understand; ask the lab's staff.": {
        "bad_answer": "The server's answer is not valid: {detail}.",
        "answer_too_long": "The server's answer is too long.",
        "request_too_long": "Everybody's keys together are longer than a request may be ({most} MB).",
        "request_too_large": "The request needs more memory than the server allows ({most} MB).",
        "status_mismatch": "The server's answer and its exit status {status} disagree.",
        "other_revision": "The server answered for another revision.",
        "frame_header": "The server received something other than a framed request.",
        "request_not_json": "The server could not read the request.",
        "version_unsupported": (
            "The server speaks versions {oldest} to {speaks} of the protocol. Deploy the host programs again."
        ),
        "field_invalid": "The server did not accept the field {field} of the request.",
        "digest_differs": "The request's digest does not match its keys.",
        "keys_no_list": "The server could not read the keys.",
        "owner_missing": "The request does not say whose keys these are.",
        "bad_request": "The server did not accept the request. Deploy the host programs again.",
    },
    "An internal error occurred; ask the lab's staff.": {
        "internal_error": "Internal error; see the worker's log.",
        "job_interrupted": (
            "The worker stopped {attempts:time|times} during this job. See its log, then start the job again."
        ),
    },
    "The connection was interrupted; it is retried.": {
        "frame_checksum": "The request was damaged on its way.",
        "frame_trailing_bytes": "The request was followed by other bytes.",
        "frame_cut": "Only {arrived} of {length} bytes of the request arrived.",
        "frame_late": "The request did not arrive in time.",
        "frame_missing": "No request arrived.",
    },
    "The server failed; ask the lab's staff.": {
        "keys_database_damaged": "{path} is damaged ({detail}). Remove it on the server and push the keys again.",
        "os_error": "{path}: {detail}.",
        "iam_account_missing": "The account iam is missing on the server. Deploy the host programs again.",
        "unexpected": "An unexpected error occurred; see the server's log.",
        "unknown": "The server reported an error without a reason; see its log.",
        "autostart_failed": "These containers did not start: {users}. See labhost doctor.",
        "container_account_failed": "The account in the container cannot be created: it has no ids.",
        "packing_failed": "The files cannot be packed: {detail}.",
        "port_taken": "Port {port} belongs to somebody else on the server.",
        "processes_left": "Processes of {name} do not end ({pids}).",
        "account_tool_failed": "{problem}: {detail}.",
        "group_missing": "The group {group} does not exist on the server. Correct [container] groups in host.conf.",
        "home_exists": "{path} exists already on the server. Move it away.",
        "local_account": "{name} is a local account of the server.",
        "local_group": "{name} is a local group of the server.",
        "numbers_of_removed_user": (
            "Port {port} or the subordinate ids from {subuid} belonged to {user}, who was removed."
        ),
        "other_subuids": "{path} gives {user} other subordinate ids than the portal.",
        "subuid_includes_account": "The ids from {subuid} include the local account {account}.",
        "subuid_overlaps": "The ids from {subuid} overlap those of {owner} in {path}.",
        "subuid_taken": "The subordinate ids from {subuid} belong to {user} on the server.",
        "no_free_address": "No address is free in {network}. Set a larger [container] network in host.conf.",
        "bridge_name_taken": "The server has another interface with the name {bridge}. Rename it.",
        "bridges_not_set": "The bridges of the containers cannot be set: {detail}.",
        "filters_not_set": "The filters of the containers' bridges cannot be set: {detail}.",
        "rules_not_readable": "The port rules cannot be read: {detail}.",
        "rules_not_set": "The port rules cannot be set: {detail}.",
        "command_failed": "The command {command} failed: {detail}.",
        "command_not_run": "The command {command} cannot be run.",
        "user_manager_not_started": "The user manager did not start: {detail}.",
        "state_not_mounted": "The state of the server cannot be mounted at {path}: {detail}.",
        "file_damaged": "{path} is damaged. Inspect it on the server.",
        "file_too_long": "{path} is longer than {limit} bytes. Inspect it on the server.",
        "files_mounted": "{path} is mounted. Unmount it.",
        "files_not_deleted": "{path} cannot be deleted: {problem}.",
        "files_not_listed": "The files cannot be listed: {detail}.",
        "files_not_mounted": "The files of {user} cannot be mounted: {problem}.",
        "files_not_moved": "{path} cannot be moved: {problem}.",
        "not_a_directory": "{path}: {problem}.",
        "size_unknown": "The size of the files is unknown: {detail}.",
        "host_config_invalid": "The file host.conf on the server: {setting}: {problem}.",
        "host_config_missing": "The file host.conf is missing on the server. Deploy the host programs.",
        "host_config_unreadable": "The file host.conf on the server cannot be read: line {line} is wrong.",
        "system_incomplete": "The system has no /{path}. Build the template again.",
        "system_template_missing": "The template {template} is missing on the server.",
        "template_damaged": "The template is damaged. Build it again with create-lxc-template.bash.",
        "template_not_unpacked": "The template cannot be unpacked: {detail}.",
        "template_unreadable": "The template cannot be read: {detail}.",
        "snapshot_folder_not_mounted": "The snapshot folder {path} is missing. Mount it on the server.",
        "snapshot_folder_not_private": "The snapshot folder {path} must belong to root alone, and be no link.",
        "snapshot_not_unpacked": "The snapshot cannot be unpacked: {detail}.",
        "failed": "The server failed; see its log.",
    },
    "The server cannot read what it needs from the portal; ask the lab's staff.": {
        "portal_limits_incomplete": "The portal's limits are incomplete: {missing}.",
        "portal_limits_invalid": "The portal's limits are not valid: {line}.",
        "portal_no_answer": "The server gets no answer from the portal ({detail}).",
        "portal_status": "The portal answered the server {status} to {page}.",
        "portal_no_text": "The portal's page {page} is not text.",
        "portal_number": "The portal's answer for the {what} is not a number.",
        "portal_port": "The portal assigned port {port}; this server allows {first} to {last}.",
        "portal_subuid": "The portal assigned subordinate ids from {start}, outside the server's range.",
        "portal_ssh_config": "The server did not accept the portal's .ssh/config.",
    },
}

TEXTS = _OWN | {reason: (text, shown) for shown, texts in _FOR_STAFF.items() for reason, text in texts.items()}
