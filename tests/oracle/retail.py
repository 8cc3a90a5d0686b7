#!/usr/bin/env python3
"""Computes from order lines alone what the handlers must hold after a run, and compares it with what they do hold.

    retail.py expect CSV                 prints the expected numbers as JSON
    retail.py compare CSV STATE.jsonl    exit 0 if the state equals them, 1 if not, 2 if an input cannot be used

It shares no code with the project and uses the standard library only: a mistake in the project cannot also be in here.
"""
import csv
import json
import re
import sys
from collections import Counter, defaultdict
from datetime import datetime
from decimal import Decimal

INVENTORY, ANALYTICS = "inventory-service", "analytics-service"
DIFFERENCES_SHOWN_MAX = 50


class Unusable(Exception):
    """An input about which the checker can say neither yes nor no."""


def read_invoices(csv_path):
    """Invoice number -> its lines, both in the order of the file."""
    invoices = defaultdict(list)
    with open(csv_path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            try:
                invoices[row["InvoiceNo"]].append({
                    "sku": row["StockCode"],
                    "quantity": int(row["Quantity"]),
                    "price": Decimal(row["UnitPrice"]),
                    "day": datetime.strptime(row["InvoiceDate"], "%m-%d-%Y %H:%M").date().isoformat(),
                    "customer": int(row["CustomerID"]) if row["CustomerID"] else None,
                    "country": row["Country"],
                })
            except (ArithmeticError, KeyError, TypeError, ValueError) as error:
                raise Unusable(f"{csv_path}, line {reader.line_num}: {error!r}") from error
    for number, lines in invoices.items():
        if len({(line["customer"], line["country"]) for line in lines}) > 1:
            raise Unusable(f"{csv_path}: the lines of invoice {number} disagree on customer or country")
    return invoices


def why_refused(number, lines):
    """The first reason that holds, or None. Most refused invoices have several; each is counted once."""
    if number.startswith("C"):
        return "cancelled"
    if any(line["quantity"] < 1 for line in lines):
        return "quantity below 1"
    if any(line["price"] < 0 for line in lines):
        return "price below 0"
    if any(line["customer"] is None for line in lines):
        return "no customer"
    return None


def cents(amount):
    whole = amount * 100
    if whole != int(whole):
        raise Unusable(f"the total {amount} is not in whole cents, and how to round it is not for a checker to decide")
    return int(whole)


class Expected:
    """Everything the state is compared with, counted in one pass over the invoices."""

    def __init__(self, csv_path):
        self.quantity, self.orders_with = Counter(), Counter()  # by SKU
        self.orders, self.revenue = Counter(), Counter()  # by (country, day)
        self.refused = Counter()  # by reason
        first_days = {"Product.Created": {}, "SKU.Created": {}, "User.Created": {}}  # what -> day it was first seen
        for number, lines in read_invoices(csv_path).items():
            for line in lines:
                # Refused invoices count here too: their products and users are events of their own, and valid ones.
                first_days["Product.Created"].setdefault(line["sku"], line["day"])
                if line["customer"] is not None:
                    first_days["User.Created"].setdefault(line["customer"], line["day"])
                # A SKU carries the price of its first line, and the schema refuses one below 0.
                first_days["SKU.Created"].setdefault(line["sku"], line["day"] if line["price"] >= 0 else None)
            reason = why_refused(number, lines)
            if reason:
                self.refused[reason] += 1
            else:
                self.accept(lines)
        self.first_seen = {  # (event type, day) -> events
            kind: Counter(day for day in days.values() if day) for kind, days in first_days.items()
        }

    def accept(self, lines):
        for line in lines:
            self.quantity[line["sku"]] += line["quantity"]
        for sku in {line["sku"] for line in lines}:
            self.orders_with[sku] += 1
        place = (lines[0]["country"], lines[0]["day"])
        self.orders[place] += 1
        self.revenue[place] += cents(sum(line["quantity"] * line["price"] for line in lines))

    def summary(self):
        return {
            "orders_accepted": self.orders.total(),
            "users": self.first_seen["User.Created"].total(),
            "products": self.first_seen["Product.Created"].total(),
            "skus": self.first_seen["SKU.Created"].total(),
            "refused": {"orders": self.refused.total(), "by_reason": dict(self.refused)},
            "orders_per_day": folded(self.orders, 1),
            "revenue_cents_per_country": folded(self.revenue, 0),
            "quantity_per_sku": dict(sorted(self.quantity.items())),
            "orders_per_sku": dict(sorted(self.orders_with.items())),
        }

    def numbers(self, with_skus):
        """The same as flat facts, (handler, key, value, field) -> number: what `state_numbers` reads from the host."""
        facts = {}
        for sku, quantity in self.quantity.items():
            facts[INVENTORY, sku, "reserved", "quantity"] = quantity
            facts[INVENTORY, sku, "reserved", "orders"] = self.orders_with[sku]
        for (country, day), orders in self.orders.items():
            facts[ANALYTICS, country, day, "events"] = orders
            facts[ANALYTICS, country, day, "orders"] = orders
            facts[ANALYTICS, country, day, "revenue_cents"] = self.revenue[country, day]
        for kind, days in self.first_seen.items():
            # Whether analytics listens to SKU.Created is a matter of routes; if it does, its numbers must be right.
            if kind != "SKU.Created" or with_skus:
                facts.update({(ANALYTICS, kind, day, "events"): n for day, n in days.items()})
        return facts


def folded(counter, place):
    sums = Counter()
    for key, number in counter.items():
        sums[key[place]] += number
    return dict(sorted(sums.items()))


def state_numbers(state_path):
    """Flat facts from the host's lines, and what is wrong with the lines themselves.

    A handler's key may appear once for each stream; such parts are summed. Twice in one stream is an error.
    """
    facts, wrong, seen = Counter(), [], set()
    with open(state_path, encoding="utf-8") as file:
        for line_number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                entry = json.loads(text, parse_float=Decimal)
                handler, stream, key = entry["handler"], entry["stream"], entry["key"]
                values = [(name, field, n) for name, value in entry["values"].items() for field, n in value.items()]
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise Unusable(f"{state_path}, line {line_number}: not a line of state: {error!r}") from error
            if handler not in (INVENTORY, ANALYTICS):
                wrong.append(f"line {line_number}: unknown handler {handler!r}")
                continue
            if (handler, stream, key) in seen:
                wrong.append(f"line {line_number}: {handler} has key {key!r} of stream {stream!r} twice")
            seen.add((handler, stream, key))
            for name, field, number in values:
                if isinstance(number, bool) or not isinstance(number, (int, Decimal)):
                    wrong.append(f"line {line_number}: {handler} / {key} / {name} / {field} is no number: {number!r}")
                else:
                    facts[handler, key, name, field] += number
    return facts, wrong


def is_event_type(key):
    return re.fullmatch(r"[A-Z][A-Za-z0-9]*(\.[A-Z][A-Za-z0-9]*){1,2}", key) is not None


def table_row(handler, key, field):
    """The line of the table a fact belongs to."""
    if handler == ANALYTICS:
        return f"{handler}: {key if is_event_type(key) else 'countries'}, {field}"
    return f"{handler}: {field}"


def compare(csv_path, state_path):
    actual, differences = state_numbers(state_path)  # a line that is wrong in itself is a difference too
    with_skus = any((handler, key) == (ANALYTICS, "SKU.Created") for handler, key, _, _ in actual)
    expected = Expected(csv_path).numbers(with_skus)
    table = defaultdict(lambda: [0, 0, 0])  # row -> [sum expected, sum in the state, numbers that differ]
    for fact in sorted(expected.keys() | actual.keys()):
        handler, key, name, field = fact
        should, is_ = expected.get(fact), actual.get(fact)
        if should is None and is_ == 0 and is_event_type(key) and field in ("orders", "revenue_cents"):
            continue  # Only orders have these; a handler may write the zeros out for the other events.
        row = table[table_row(handler, key, field)]
        row[0] += should or 0
        row[1] += is_ or 0
        if should != is_:
            row[2] += 1
            kind = "missing" if is_ is None else "extra" if should is None else "different"
            differences.append(f"{kind}: {handler} / {key} / {name} / {field}: expected {should}, is {is_}")
    print(f"{'':<52}{'expected':>14}{'is':>14}{'differ':>8}")
    for name, (should, is_, differ) in table.items():
        print(f"{name:<52}{should:>14}{is_:>14}{differ:>8}")
    for difference in differences[:DIFFERENCES_SHOWN_MAX]:
        print(difference)
    if len(differences) > DIFFERENCES_SHOWN_MAX:
        print(f"... and {len(differences) - DIFFERENCES_SHOWN_MAX} more")
    print(f"equal: {len(expected)} numbers" if not differences else f"NOT equal: {len(differences)} differences")
    return 1 if differences else 0


def main(arguments):
    try:
        match arguments:
            case ["expect", csv_path]:
                print(json.dumps(Expected(csv_path).summary(), indent=2, ensure_ascii=False))
                return 0
            case ["compare", csv_path, state_path]:
                return compare(csv_path, state_path)
    except (Unusable, OSError, UnicodeDecodeError, csv.Error) as error:
        print(f"retail.py: {error}", file=sys.stderr)
        return 2
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
