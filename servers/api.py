"""The read-only JSON API. People see their own data, staff see everything."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import generics, mixins, viewsets
from rest_framework.permissions import IsAdminUser

from accounts.models import SSHKey, User
from accounts.views import signed_in
from servers.models import Container, Push, Server
from servers.serializers import ContainerSerializer, KeySerializer, PersonSerializer, PushSerializer, ServerSerializer
from servers.services.status import key_status
from servers.services.status.key_status import KeyStatus


@extend_schema(summary="The person who is signed in")
class Me(generics.RetrieveAPIView):
    serializer_class = PersonSerializer

    def get_object(self) -> User:
        return signed_in(self.request)


class Servers(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Servers in service; staff also see those out of service."""

    serializer_class = ServerSerializer
    queryset = Server.objects.order_by("name")
    lookup_field = "name"
    lookup_value_regex = "[a-z0-9-]+"

    def get_queryset(self) -> QuerySet[Server]:
        everything = super().get_queryset()
        return everything if signed_in(self.request).is_staff else everything.filter(enabled=True)


class Containers(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Your containers; staff see all containers."""

    serializer_class = ContainerSerializer
    queryset = Container.objects.select_related("server", "user").order_by("pk")

    def get_queryset(self) -> QuerySet[Container]:
        caller, everything = signed_in(self.request), super().get_queryset()
        return everything if caller.is_staff else everything.filter(user=caller)


@extend_schema_view(
    list=extend_schema(
        parameters=[
            OpenApiParameter("user", str, description="User name; for staff."),
            OpenApiParameter("removed", bool, description="true: list removed keys instead of active ones."),
        ]
    )
)
class Keys(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Your keys, with the state of each key on each server; staff see all keys."""

    serializer_class = KeySerializer
    queryset = SSHKey.objects.select_related("user").order_by("pk")
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[SSHKey]:
        caller, found = signed_in(self.request), super().get_queryset()
        if not caller.is_staff:
            found = found.filter(user=caller)
        if self.action != "list":
            return found
        if name := self.request.query_params.get("user"):
            found = found.filter(user__username=name.lower())
        is_removed = self.request.query_params.get("removed", "").lower() in {"true", "1"}
        return found.filter(revoked_at__isnull=not is_removed)

    def paginate_queryset(self, queryset: Any) -> Any:
        """Load the states of all keys on this page together."""
        page = super().paginate_queryset(queryset)
        return key_status.status_of(page or [])

    def get_object(self) -> KeyStatus:
        return key_status.status_of([super().get_object()])[0]


class Pushes(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Pushes of keys to servers, newest first."""

    serializer_class = PushSerializer
    queryset = Push.objects.select_related("server").order_by("-pk")

    def get_queryset(self) -> QuerySet[Push]:
        everything = super().get_queryset()
        return everything if signed_in(self.request).is_staff else everything.filter(server__enabled=True)


class Users(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """All people; for staff."""

    permission_classes = [IsAdminUser]
    serializer_class = PersonSerializer
    queryset = User.objects.select_related("port", "subuids").prefetch_related("ssh_keys").order_by("username")
    lookup_field = "username"
    lookup_url_kwarg = "name"
    lookup_value_regex = "[a-z_][a-z0-9_-]*"
