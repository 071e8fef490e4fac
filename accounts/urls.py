"""Addresses of the sign-in and key pages."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from accounts import views

urlpatterns = [
    path("", views.home, name="home"),
    path("manage/ssh-key/<str:name>", views.manage_ssh_key, name="manage-ssh-key"),
    path("login/", views.SignIn.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("me/keys/add", views.add_key, name="add-key"),
    path("me/keys/<int:pk>/remove", views.remove_key, name="remove-key"),
]
