import django.dispatch

# Sent after the commit of every change to what the servers should hold, with revision=int.
keys_changed = django.dispatch.Signal()
