"""The admin router: metrics, health, status, findings, the console."""

from fastapi import APIRouter

from shadow.web.admin import AdminView, admin_router
from shadow.web.desk import Desk

__all__ = ["APIRouter", "AdminView", "Desk", "admin_router"]
