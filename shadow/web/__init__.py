"""The admin router: metrics, health, status, findings, the console."""

from fastapi import APIRouter

from shadow.web.admin import AdminView, admin_router
from shadow.web.desk import AdminService

__all__ = ["APIRouter", "AdminService", "AdminView", "admin_router"]
