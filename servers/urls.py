"""Addresses of the pages, the plain text and the API."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from servers import api, plain_text, views

router = SimpleRouter(trailing_slash=False)
router.register("servers", api.Servers)
router.register("containers", api.Containers)
router.register("keys", api.Keys, basename="key")
router.register("pushes", api.Pushes)
router.register("users", api.Users)

urlpatterns = [
    path("me/", views.me, name="me"),
    path("me/tokens/add", views.add_token, name="add-token"),
    path("me/tokens/<slug:token_key>/remove", views.remove_token, name="remove-token"),
    path("log/push-keys", views.push_log, name="push-log"),
    path("healthz", views.healthz, name="healthz"),
    path("servers/<str:name>/online", views.server_online, name="server-online"),
    path("user/<str:name>/port", plain_text.port, name="text-port"),
    path("user/<str:name>/subuid", plain_text.subuid, name="text-subuid"),
    path("user/<str:name>/limits", plain_text.limits, name="text-limits"),
    path("user/<str:name>/name", plain_text.full_name, name="text-name"),
    path("user/<str:name>/.ssh/authorized_keys", plain_text.authorized_keys, name="text-keys"),
    path("user/<str:name>/.ssh/config", plain_text.ssh_config, name="text-ssh-config"),
    path("users", plain_text.users, name="text-users"),
    path("api/v1/me", api.Me.as_view(), name="api-me"),
    path("api/v1/", include(router.urls)),
]
