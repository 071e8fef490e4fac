"""What other apps may listen to."""

import django.dispatch

# Sent after the commit of every change to what the servers should hold, with revision=int.
keys_changed = django.dispatch.Signal()

# Sent after the commit in which a person was locked out, with user=User and actor=str.
locked_out = django.dispatch.Signal()
