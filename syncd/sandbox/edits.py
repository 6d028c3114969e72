"""What people do in the CRM's own screens, as values: the edits that a client only finds out by reading."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, assert_never

import msgspec

from syncd.domain.errors import UserError
from syncd.sandbox.records import OrderLine
from syncd.sandbox.world import World


class _Edit(msgspec.Struct, tag_field="edit", forbid_unknown_fields=True, kw_only=True):
    """An edit is an object with its name under ``edit``."""


class PayOrder(_Edit, tag="pay_order"):
    """Pay an order, or take the payment back."""

    order: int
    is_paid: bool = True


class AddOrder(_Edit, tag="add_order"):
    """Place an order for a relation, now or at an instant."""

    relation: int
    product: str = "Desembrood"
    quantity: int = 1
    is_paid: bool = True
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class DeleteOrder(_Edit, tag="delete_order"):
    """Remove an order for good."""

    order: int


class AddRelation(_Edit, tag="add_relation"):
    """Create a relation."""

    email: str
    first_name: str = ""
    suffix: str = ""
    last_name: str = ""
    gender: str = "-"


class ChangeRelation(_Edit, tag="change_relation"):
    """Change a relation's profile, the e-mail address included."""

    relation: int
    email: str | None = None
    first_name: str | None = None
    suffix: str | None = None
    last_name: str | None = None
    gender: str | None = None
    funnel_state: str | None = None


class DeleteRelation(_Edit, tag="delete_relation"):
    """Remove a relation."""

    relation: int


class AddTag(_Edit, tag="add_tag"):
    """Create a tag; its name may be taken."""

    name: str


class RenameTag(_Edit, tag="rename_tag"):
    """Give a tag another name under its id."""

    tag: int
    name: str


class TagRelation(_Edit, tag="tag_relation"):
    """Put a tag on a relation, or take it off."""

    relation: int
    tag: int
    is_on: bool = True


class MoveMember(_Edit, tag="move_member"):
    """Add a relation to a group, or remove it."""

    relation: int
    group: int
    is_in: bool = True


class SetField(_Edit, tag="set_field"):
    """Give a relation a free-field value; no client can ever see it."""

    relation: int
    code: str
    value: str


Edit = (
    PayOrder
    | AddOrder
    | DeleteOrder
    | AddRelation
    | ChangeRelation
    | DeleteRelation
    | AddTag
    | RenameTag
    | TagRelation
    | MoveMember
    | SetField
)


def apply(world: World, edit: Edit) -> int | None:
    """Make an edit; return the id of what it made, if anything. KeyError names an id that nobody has."""
    match edit:
        case PayOrder(order=order, is_paid=is_paid):
            world.change_order(order, is_paid=is_paid)
        case AddOrder():
            return _add_order(world, edit)
        case DeleteOrder(order=order):
            world.delete_order(order)
        case AddRelation():
            return _add_relation(world, edit)
        case ChangeRelation():
            _change_relation(world, edit)
        case DeleteRelation(relation=number):
            world.delete_relation(number)
        case AddTag(name=name):
            return world.add_tag(name).id
        case RenameTag(tag=tag, name=name):
            world.rename_tag(tag, name)
        case TagRelation(relation=number, tag=tag, is_on=is_on):
            (world.tag if is_on else world.untag)(world.relations[number], world.tags[tag].id)
        case MoveMember(relation=number, group=group, is_in=is_in):
            (world.join if is_in else world.leave)(world.relations[number], world.groups[group].id)
        case SetField(relation=number, code=code, value=value):
            world.set_field(world.relations[number], world.fields[code].code, value)
        case _:
            assert_never(edit)
    return None


def _add_order(world: World, edit: AddOrder) -> int:
    line = OrderLine("product", 7001, edit.product, edit.quantity)
    return world.add_order(world.relations[edit.relation].id, (line,), is_paid=edit.is_paid, at=edit.at).id


def _add_relation(world: World, edit: AddRelation) -> int:
    if world.relation(edit.email) is not None:
        raise UserError(f"a relation has that address: {edit.email}")
    return world.add_relation(
        edit.email, first_name=edit.first_name, suffix=edit.suffix, last_name=edit.last_name, gender=edit.gender
    ).id


def _change_relation(world: World, edit: ChangeRelation) -> None:
    given = msgspec.structs.asdict(edit)
    number = given.pop("relation")
    world.change_relation(number, **{name: value for name, value in given.items() if value is not None})
