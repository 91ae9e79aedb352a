"""The runner settings pages of one group."""

from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.web import runner_pages, scoped

blueprint = scoped.room(ScopeKind.GROUP, "runners", Action.READ_RUNNERS)
runner_pages.mount(blueprint)
