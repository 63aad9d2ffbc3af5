"""Asking beforehand: the event that so much of a feature would be, and what it is judged by.

An event is sent under a code, with properties; who asks may name a feature and a quantity alone. Then units of that
feature are meant: its own meter counts them all, whatever else it reads of an event or lets through.
"""

from dataclasses import replace
from datetime import datetime

from tallystick.core.catalog import Catalogue, Feature
from tallystick.core.events import UsageEvent
from tallystick.core.meters import Aggregation, Meter, in_force


def supposed(
    event: UsageEvent, catalogue: Catalogue, feature: Feature, start: datetime, *, with_properties: bool
) -> tuple[UsageEvent, Catalogue]:
    """An event that names the feature it asks for, under the code which the meter of the period from `start` listens
    to, and the catalogue to judge it by."""
    asked = in_force(catalogue.versions[feature.id], start)
    if event.feature != asked.event_code:
        event = event._replace(feature=asked.event_code)
    fed = catalogue.meters.get(asked.event_code, ())
    if with_properties or all(each.reads_all and each.aggregation is Aggregation.SUM for each in fed):
        return event, catalogue
    meant = tuple(_units(each, asked) for each in fed)
    return event, replace(catalogue, meters={**catalogue.meters, asked.event_code: meant})


def _units(each: Meter, asked: Meter) -> Meter:
    if each.feature_id == asked.feature_id:
        counted = Aggregation.SUM if each.adds_up else each.aggregation
        return replace(each, aggregation=counted, property_name=None, filters=())
    if each.aggregation is asked.aggregation is Aggregation.COUNT:  # so many of one are so many of the other
        return replace(each, aggregation=Aggregation.SUM, property_name=None)
    return each
