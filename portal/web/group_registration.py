"""The registration token of one group, and the switch that turns the old way off there and below."""

from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.web import registration_pages, scoped

blueprint = scoped.room(ScopeKind.GROUP, "registration", Action.SEE)
registration_pages.mount(blueprint)
