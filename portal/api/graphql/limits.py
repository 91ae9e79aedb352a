"""How much one query may ask for: how deep, how complex, how long, with which characters; a validation rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNamedType,
    GraphQLObjectType,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    StringValueNode,
    ValidationContext,
    ValidationRule,
    VariableNode,
    get_named_type,
    is_leaf_type,
)

from portal.api.graphql import paging
from portal.domain.actors import Actor

MOST_CHARACTERS = 10_000  # of the texts of all queries of one request
MOST_WRITTEN = 500  # fields and fragments in one text, asked for or not: comparing them takes the square of it
MOST_FRAGMENTS = 50  # in one text: comparing what they select takes the square of them, too
MOST_ERRORS = 5
INTROSPECTION = 250  # of the standard introspection query, for everybody; GitLab's 217 is of an older one
NODES_TWICE = 100  # a page of so many nodes costs twice what it does without any: GitLab's multiplier of 0.01
LISTS = {"CiRunnerConnection": 5, "CiJobConnection": 5}  # what asking the database for a list costs besides
DEPTH_OF_VISITORS, DEPTH = 15, 20
COMPLEXITY_OF_VISITORS, COMPLEXITY, COMPLEXITY_OF_ADMINISTRATORS = 200, 250, 300


@dataclass(slots=True)
class Measure:
    """What a query may cost, and what it costs: found by the rule."""

    most_complex: int
    deepest: int
    complexity: int = 0
    depth: int = 0


def measure_for(actor: Actor) -> Measure:
    """The limits of who asks."""
    if actor.user is None:
        return Measure(COMPLEXITY_OF_VISITORS, DEPTH_OF_VISITORS)
    return Measure(COMPLEXITY_OF_ADMINISTRATORS if actor.is_admin else COMPLEXITY, DEPTH)


def unstorable(value: Any) -> bool:
    """Whether a text, or one somewhere within, has a character that the database cannot take."""
    ahead = [value]
    while ahead:
        here = ahead.pop()
        if isinstance(here, str):
            if "\0" in here or not _encodable(here):
                return True
        elif isinstance(here, Mapping):
            ahead += [*here.keys(), *here.values()]
        elif isinstance(here, list):
            ahead += here
    return False


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair, which JSON can write
        return False
    return True


def rule(operation: OperationDefinitionNode, variables: Mapping[str, Any], measure: Measure) -> type[ValidationRule]:
    """The rule that measures this operation of a document, and refuses what is beyond the limits."""

    class WithinLimits(ValidationRule):
        def __init__(self, context: ValidationContext) -> None:
            super().__init__(context)
            self.written = self.fragments = 0

        def enter_document(self, *_args: Any) -> None:
            cost = _Costs(self.context, operation, variables).of_operation()
            measure.complexity, measure.depth = cost.complexity, cost.depth
            if cost.only_introspects:
                measure.most_complex = max(measure.most_complex, INTROSPECTION)
            if cost.complexity > measure.most_complex:
                self._refuse(
                    f"Query has complexity of {cost.complexity}, which exceeds max complexity of "
                    f"{measure.most_complex}. Ask for fewer fields, or for shorter pages with `first`."
                )
            if cost.depth > measure.deepest:
                self._refuse(f"Query has depth of {cost.depth}, which exceeds max depth of {measure.deepest}.")

        def enter_selection_set(self, node: SelectionSetNode, *_args: Any) -> None:
            self.written += len(node.selections)
            if MOST_WRITTEN < self.written <= MOST_WRITTEN + len(node.selections):
                self._refuse(f"The query has more than {MOST_WRITTEN} fields and fragments. Send several queries.")

        def enter_fragment_definition(self, *_args: Any) -> None:
            self.fragments += 1
            if self.fragments == MOST_FRAGMENTS + 1:
                self._refuse(f"The query has more than {MOST_FRAGMENTS} fragments. Send several queries.")

        def enter_string_value(self, node: StringValueNode, *_args: Any) -> None:
            if unstorable(node.value):
                self.report_error(GraphQLError("A text has a character that cannot be stored (U+0000).", [node]))

        def _refuse(self, sentence: str) -> None:
            self.report_error(GraphQLError(sentence))

    return WithinLimits


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part of a query costs, and how deep it goes."""

    complexity: int = 0
    depth: int = 0
    only_introspects: bool = False


class _Costs:
    """What the selections of one operation cost; each fragment is looked at once."""

    def __init__(
        self, context: ValidationContext, operation: OperationDefinitionNode, variables: Mapping[str, Any]
    ) -> None:
        self.context, self.operation, self.variables = context, operation, variables
        self.defaults = {
            each.variable.name.value: each.default_value for each in operation.variable_definitions or ()
        }
        self.fragments: dict[str, Cost] = {}

    def of_operation(self) -> Cost:
        """The cost of the whole; of a mutation each field counts like a query of its own."""
        root = self.context.schema.get_root_type(self.operation.operation)
        cost = self._of_selections(self.operation.selection_set, root)
        names = [each.name.value for each in self.operation.selection_set.selections if isinstance(each, FieldNode)]
        introspects = len(names) == len(self.operation.selection_set.selections) and all(
            name.startswith("__") for name in names
        )
        return Cost(cost.complexity, cost.depth, introspects)

    def _of_selections(self, selected: SelectionSetNode | None, parent: GraphQLNamedType | None) -> Cost:
        complexity = depth = 0
        for each in selected.selections if selected else ():
            if isinstance(each, FieldNode):
                cost = self._of_field(each, parent)
            elif isinstance(each, FragmentSpreadNode):
                cost = self._of_fragment(each.name.value)
            elif isinstance(each, InlineFragmentNode):
                condition = each.type_condition
                inner = self.context.schema.get_type(condition.name.value) if condition else parent
                cost = self._of_selections(each.selection_set, inner)
            else:
                continue
            complexity, depth = complexity + cost.complexity, max(depth, cost.depth)
        return Cost(complexity, depth)

    def _of_fragment(self, name: str) -> Cost:
        if name not in self.fragments:
            self.fragments[name] = Cost()  # of one that holds itself: another rule refuses it
            found: FragmentDefinitionNode | None = self.context.get_fragment(name)
            if found is not None:
                on = self.context.schema.get_type(found.type_condition.name.value)
                self.fragments[name] = self._of_selections(found.selection_set, on)
        return self.fragments[name]

    def _of_field(self, node: FieldNode, parent: GraphQLNamedType | None) -> Cost:
        field = None
        if isinstance(parent, GraphQLObjectType):
            field = self.context.schema.get_field(parent, node.name.value)
        kind = get_named_type(field.type) if field is not None else None
        below = self._of_selections(node.selection_set, None if is_leaf_type(kind) else kind)
        complexity = 1 + below.complexity
        if kind is not None and kind.name.endswith("Connection"):
            complexity += LISTS.get(kind.name, 0)
            complexity = complexity * (NODES_TWICE + self._page_size(node)) // NODES_TWICE
        return Cost(complexity, 1 + below.depth)

    def _page_size(self, node: FieldNode) -> int:
        given = {each.name.value: each.value for each in node.arguments or ()}
        sizes = [self._number(given[name]) for name in ("first", "last") if name in given]
        return max(0, min([paging.MOST, *(size for size in sizes if size is not None)]))

    def _number(self, value: Any) -> int | None:
        if isinstance(value, VariableNode):
            name = value.name.value
            found = self.variables.get(name)
            if name in self.variables:
                return found if isinstance(found, int) else None
            value = self.defaults.get(name)
        return int(value.value) if isinstance(value, IntValueNode) and len(value.value) < 20 else None
