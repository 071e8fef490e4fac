"""The interface for machines, read only. People see themselves; staff see everybody."""

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics, mixins, viewsets
from rest_framework.permissions import IsAdminUser
from rest_framework.request import Request

from accounts.models import User
from servers.models import Container, Server, Sync
from servers.serializers import ContainerSerializer, PersonSerializer, ServerSerializer, SyncSerializer


def _caller(request: Request) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - IsAuthenticated
    return request.user


@extend_schema(summary="Yourself")
class Me(generics.RetrieveAPIView):
    serializer_class = PersonSerializer

    def get_object(self) -> User:
        return _caller(self.request)


class Servers(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """The servers; those out of service only for staff."""

    serializer_class = ServerSerializer
    queryset = Server.objects.order_by("name")
    lookup_field = "name"
    lookup_value_regex = "[a-z0-9-]+"

    def get_queryset(self) -> QuerySet[Server]:
        everything = super().get_queryset()
        return everything if _caller(self.request).is_staff else everything.filter(enabled=True)


class Containers(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Your containers; staff see all."""

    serializer_class = ContainerSerializer
    queryset = Container.objects.select_related("server", "user").order_by("pk")

    def get_queryset(self) -> QuerySet[Container]:
        caller, everything = _caller(self.request), super().get_queryset()
        return everything if caller.is_staff else everything.filter(user=caller)


class Syncs(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Pushes of keys to the servers, the latest first."""

    serializer_class = SyncSerializer
    queryset = Sync.objects.select_related("server").order_by("-pk")

    def get_queryset(self) -> QuerySet[Sync]:
        everything = super().get_queryset()
        return everything if _caller(self.request).is_staff else everything.filter(server__enabled=True)


class Users(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """All people, for staff."""

    permission_classes = [IsAdminUser]
    serializer_class = PersonSerializer
    queryset = User.objects.select_related("port", "subuids").prefetch_related("ssh_keys").order_by("username")
    lookup_field = "username"
    lookup_url_kwarg = "name"
    lookup_value_regex = "[a-z_][a-z0-9_-]*"
