"""The JSON of people, servers, containers, keys and pushes in the API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.models import User
from servers import messages
from servers.models import Container, Push, Server
from servers.protocol import Message
from servers.services.status import key_status

STATES = [(state.value, state.name) for state in key_status.State]


class MessageSerializer(serializers.Serializer):
    """A coded message: `reason` and `params` for programs, `text` for people."""

    reason = serializers.CharField()
    params = serializers.DictField()
    text = serializers.CharField()

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Of a Message. Staff read a text of their own."""
        is_staff = self.context["request"].user.is_staff
        return instance.as_json() | {"text": messages.render(instance, "staff" if is_staff else "person")}


class PersonSerializer(serializers.ModelSerializer):
    """A person with port, first subordinate id (null before the first sign-in) and fingerprints of active keys."""

    name = serializers.CharField(source="username")
    full_name = serializers.CharField(source="get_full_name")
    port = serializers.IntegerField(source="port.number", default=None, allow_null=True)
    subuid = serializers.IntegerField(source="subuids.start", default=None, allow_null=True)
    keys = serializers.SerializerMethodField()

    class Meta:
        model = User
        fields = ["name", "full_name", "is_active", "is_staff", "port", "subuid", "keys"]
        read_only_fields = fields

    def get_keys(self, user: User) -> list[str]:
        return [key.fingerprint for key in user.ssh_keys.all() if key.is_active]


class ServerSerializer(serializers.ModelSerializer):
    applied_revision = serializers.IntegerField(source="state.applied_revision")
    behind_since = serializers.DateTimeField(source="state.behind_since", allow_null=True)
    ahead_since = serializers.DateTimeField(source="state.ahead_since", allow_null=True)
    next_attempt = serializers.DateTimeField(source="state.next_attempt", allow_null=True)
    last_contact = serializers.DateTimeField(source="state.last_contact", allow_null=True)
    driver_version = serializers.CharField(source="state.driver_version")
    storage = serializers.CharField(source="state.storage")

    class Meta:
        model = Server
        of_state = [
            "applied_revision",
            "behind_since",
            "ahead_since",
            "next_attempt",
            "last_contact",
            "driver_version",
            "storage",
        ]
        fields = ["name", "address", "ssh_port", "fingerprint", "enabled", *of_state]
        read_only_fields = fields


class ContainerSerializer(serializers.ModelSerializer):
    server = serializers.CharField(source="server.name")
    user = serializers.CharField(source="user.username")

    class Meta:
        model = Container
        fields = ["server", "user", "state", "address", "last_seen"]
        read_only_fields = fields


class PlaceSerializer(serializers.Serializer):
    """One key file on a server: of the host account, the container, or the account `register`."""

    name = serializers.ChoiceField([key_status.HOST, key_status.CONTAINER, key_status.REGISTER])
    state = serializers.ChoiceField(STATES)
    since = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField()


class OnServerSerializer(serializers.Serializer):
    server = serializers.CharField(source="server.name")
    state = serializers.ChoiceField(STATES)
    since = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField()
    next_retry = serializers.DateTimeField(allow_null=True)
    places = PlaceSerializer(many=True)


class KeySerializer(serializers.Serializer):
    """A key and its state on each server, as confirmed by the servers. It is live on `live` of `total` servers."""

    id = serializers.IntegerField(source="key.pk")
    user = serializers.CharField(source="key.user.username")
    fingerprint = serializers.CharField(source="key.fingerprint")
    type = serializers.CharField(source="key.key_type")
    comment = serializers.CharField(source="key.comment")
    added = serializers.DateTimeField(source="key.created_at")
    removed = serializers.DateTimeField(source="key.revoked_at", allow_null=True)
    summary = serializers.CharField()
    live = serializers.IntegerField()
    total = serializers.IntegerField()
    servers = OnServerSerializer(many=True)


class UserResultSerializer(serializers.Serializer):
    host = serializers.CharField()
    container = serializers.CharField()
    error = MessageSerializer(allow_null=True)

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return super().to_representation(instance | {"error": Message.from_json(instance["error"])})


class PushSerializer(serializers.ModelSerializer):
    """A push. `results` has the outcome for each person by user name; people see only their own, staff all."""

    server = serializers.CharField(source="server.name")
    error = MessageSerializer(allow_null=True)
    results = serializers.SerializerMethodField()

    class Meta:
        model = Push
        fields = ["id", "server", "state", "revision", "started_at", "finished_at", "error", "results"]
        read_only_fields = fields

    @extend_schema_field(serializers.DictField(child=UserResultSerializer()))
    def get_results(self, push: Push) -> dict[str, dict[str, Any]]:
        user: User = self.context["request"].user
        shown = UserResultSerializer(context=self.context)
        return {
            name: shown.to_representation(row)
            for name, row in push.results.items()
            if user.is_staff or name == user.username
        }
