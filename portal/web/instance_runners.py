"""The runner settings pages of the instance: every runner there is."""

from portal.domain.permissions import Action
from portal.domain.scopes import ScopeKind
from portal.web import runner_pages, scoped

blueprint = scoped.room(ScopeKind.INSTANCE, "runners", Action.READ_RUNNERS)
runner_pages.mount(blueprint)
