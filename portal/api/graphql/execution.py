"""One query from its text to its answer: parsed, measured, validated, executed."""

from __future__ import annotations

from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    MiddlewareManager,
    OperationDefinitionNode,
    OperationType,
    execute_sync,
    parse,
    specified_rules,
    validate,
)

from portal.api.graphql import limits, problems
from portal.api.graphql.budget import Stopped, counted
from portal.api.graphql.context import Context
from portal.api.graphql.schema import schema
from portal.api.graphql.transport import Asked

TOO_DEEP = "The query is nested too deeply."
COUNTED = MiddlewareManager(counted)
Answer = dict[str, Any]


class Query:
    """One query that was parsed; what is wrong with its text is answered when it is run."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.document: DocumentNode | None = None
        self.operation: OperationDefinitionNode | None = None
        self.errors: list[GraphQLError] = []
        try:
            self.document = _parsed(asked.query)
            self.operation = _operation(self.document, asked.operation_name)
        except GraphQLError as error:
            self.errors = [error]

    @property
    def changes_something(self) -> bool:
        """Whether any of its operations is a mutation: who may not send one may not send it along either."""
        definitions = self.document.definitions if self.document else ()
        operations = [each for each in definitions if isinstance(each, OperationDefinitionNode)]
        return any(each.operation is OperationType.MUTATION for each in operations)

    def run(self, context: Context) -> Answer:
        """Its answer. Raises what ends the request as a whole: AnswerTooLarge, TookTooLong, DBAPIError."""
        if self.document is None or self.operation is None:
            return {"errors": problems.told(self.errors)}
        if errors := self._problems(context, self.document, self.operation):
            return {"errors": problems.told(errors)}
        try:
            result = execute_sync(
                schema,
                self.document,
                context_value=context,
                variable_values=self.asked.variables,
                operation_name=self.asked.operation_name,
                middleware=COUNTED,
            )
        except Stopped as stopped:
            raise stopped.because from None
        return _answer(result)

    def _problems(
        self, context: Context, document: DocumentNode, operation: OperationDefinitionNode
    ) -> list[GraphQLError]:
        """What is wrong with it. Measured first: only what is small enough is looked at closely."""
        measure = limits.measure_for(context.actor)
        within = limits.rule(operation, self.asked.variables, measure)
        try:
            found = validate(schema, document, [within], max_errors=limits.MOST_ERRORS)
            found = found or validate(schema, document, specified_rules, max_errors=limits.MOST_ERRORS)
        except RecursionError:
            found = [GraphQLError(TOO_DEEP)]
        context.score, context.limit = measure.complexity, measure.most_complex
        return found[: limits.MOST_ERRORS]


def _parsed(text: str) -> DocumentNode:
    """Raises GraphQLError."""
    if not text.strip():
        raise GraphQLError("There is no query: send its text as `query`.")
    try:
        return parse(text)
    except RecursionError:
        raise GraphQLError(TOO_DEEP) from None


def _operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """The operation that is asked for. Raises GraphQLError."""
    found = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    if name is not None:
        found = [each for each in found if each.name is not None and each.name.value == name]
    if not found:
        raise GraphQLError("No operation of this name is in the query." if name else "The query has no operation.")
    if len(found) > 1 and name is None:
        raise GraphQLError("The query has several operations: say with `operationName` which one to carry out.")
    return found[0]


def _answer(result: ExecutionResult) -> Answer:
    answer: Answer = {"data": result.data}
    if result.errors:
        answer["errors"] = problems.told(result.errors)
    return answer
