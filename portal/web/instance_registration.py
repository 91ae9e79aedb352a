"""The registration token of the instance, and the switch that turns the old way off everywhere."""

from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.web import registration_pages, scoped

blueprint = scoped.room(ScopeKind.INSTANCE, "registration", Action.SEE)
registration_pages.mount(blueprint)
