"""The admin router: metrics, health, status."""

from fastapi import APIRouter

from shadow.web.admin import AdminView, admin_router

__all__ = ["APIRouter", "AdminView", "admin_router"]
