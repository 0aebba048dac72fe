"""Instruments: what can be traded, in which steps, and how decimals become integers and back.

The book knows only integers: a price is a number of ticks, a quantity a number of lots. This module
is the one place where the two worlds meet. No float appears in it.
"""

import re
from decimal import Decimal, localcontext

import msgspec

EXACT_LIMIT = 2**53
"""Integers below this are exact in a double, which is what Redis scores and Lua numbers are."""

MAX_PRICE_TICKS_DEFAULT = 10**12
MAX_QUANTITY_LOTS_DEFAULT = 10**15
MAX_NUMBER_TEXT = 40
"""Characters that a price or quantity may have on its way in."""
MAX_DECIMALS = 18

SYMBOL_PATTERN = r"^[A-Z0-9]{2,12}-[A-Z0-9]{2,12}$"
_SYMBOL = re.compile(SYMBOL_PATTERN)
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")


class InvalidNumber(ValueError):
    """A price or quantity that the instrument cannot represent exactly; `code` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class InvalidInstrument(ValueError):
    """An instrument that cannot be listed; `field` names the part that is wrong."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


def parse_decimal(text: str) -> Decimal:
    """Read the JSON number grammar, nothing else (no `NaN`, no `1_000`, no `٣`), without a float.

    Raises:
        InvalidNumber: `malformed_number` or `too_many_digits`.
    """
    if len(text) > MAX_NUMBER_TEXT:
        raise InvalidNumber("too_many_digits", f"more than {MAX_NUMBER_TEXT} characters")
    if not _PLAIN_NUMBER.fullmatch(text):
        raise InvalidNumber("malformed_number", "not a decimal number")
    return Decimal(text)


def divide_half_even(numerator: int, denominator: int) -> int:
    """The quotient as a whole number, rounded half to even; `denominator` > 0."""
    whole, rest = divmod(numerator, denominator)
    if rest * 2 > denominator or (rest * 2 == denominator and whole % 2):
        return whole + 1
    return whole


def _decimals(step: Decimal) -> int:
    return max(0, -int(step.normalize().as_tuple().exponent))


class Scale:
    """Converts between decimals and whole numbers of one step (a tick or a lot).

    `step` is the size of one unit (Decimal, > 0), `limit` the greatest number of units accepted.
    """

    __slots__ = ("_digits", "_factor", "_power", "_step_units", "decimals", "limit", "step")

    def __init__(self, step: Decimal, limit: int) -> None:
        self.step = step
        self.limit = limit
        self.decimals = _decimals(step)
        self._power: int = 10**self.decimals
        self._step_units = int(step.scaleb(self.decimals))
        self._digits = f"0{self.decimals}d"

    def to_units(self, value: Decimal, what: str) -> int:
        """Number of steps in `value`, exactly.

        Raises:
            InvalidNumber: `not_positive`, `out_of_range` or `off_<what>` ('tick', 'lot' or 'step').
        """
        if value <= 0:
            raise InvalidNumber("not_positive", "must be greater than zero")
        if value.adjusted() > MAX_NUMBER_TEXT or value.adjusted() < -MAX_NUMBER_TEXT:
            raise InvalidNumber("out_of_range", "exponent out of range")
        numerator, denominator = value.as_integer_ratio()
        units, rest = divmod(numerator * self._power, denominator * self._step_units)
        if rest:
            raise InvalidNumber(f"off_{what}", f"must be a multiple of {self.step:f}")
        if units > self.limit:
            raise InvalidNumber("out_of_range", f"must not exceed {self.format(self.limit)}")
        return units

    def format(self, units: int) -> str:
        """Decimal text of `units` steps with the instrument's own number of decimals."""
        if not self.decimals:
            return str(units * self._step_units)
        whole, fraction = divmod(units * self._step_units, self._power)
        return f"{whole}.{fraction:{self._digits}}"

    def format_signed(self, units: int) -> str:
        """As `format`, of a number that may be negative."""
        return f"-{self.format(-units)}" if units < 0 else self.format(units)

    def format_ratio(self, numerator: int, denominator: int) -> str:
        """Decimal text of numerator / denominator steps, rounded half to even."""
        rounded = divide_half_even(numerator * self._step_units, denominator)
        if not self.decimals:
            return str(rounded)
        whole, fraction = divmod(rounded, self._power)
        return f"{whole}.{fraction:{self._digits}}"


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One tradable pair; sizes and limits as decimals, in units of prices and quantities."""

    symbol: str
    tick_size: Decimal
    lot_size: Decimal
    max_price: Decimal
    max_quantity: Decimal

    @property
    def base(self) -> str:
        """The asset bought and sold (`BTC` of `BTC-USD`)."""
        return self.symbol.split("-")[0]

    @property
    def quote(self) -> str:
        """The asset that pays (`USD` of `BTC-USD`)."""
        return self.symbol.split("-")[1]


class Market:
    """An instrument ready for use: the scales that its orders and rules are read and written with.
    A unit of `notional` is a tick times a lot.
    """

    __slots__ = ("instrument", "notional", "price", "quantity", "symbol")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.symbol = instrument.symbol
        self.price = Scale(instrument.tick_size, int(instrument.max_price / instrument.tick_size))
        self.quantity = Scale(
            instrument.lot_size, int(instrument.max_quantity / instrument.lot_size)
        )
        self.notional = _notional_scale(instrument, self.price.limit * self.quantity.limit)


def _notional_scale(instrument: Instrument, limit: int) -> Scale:
    with localcontext(prec=2 * MAX_DECIMALS + 1):  # a product may need the digits of both
        return Scale(instrument.tick_size * instrument.lot_size, limit)


def list_instrument(
    symbol: str,
    tick_size: Decimal,
    lot_size: Decimal,
    max_price: Decimal | None = None,
    max_quantity: Decimal | None = None,
) -> Instrument:
    """Build an instrument whose every price and quantity is exact: below 2^53 ticks and lots.

    Raises:
        InvalidInstrument: a malformed symbol, a step that is not positive or finer than
            `MAX_DECIMALS`, a limit that is off its step or not below 2^53 steps.
    """
    if not _SYMBOL.fullmatch(symbol):
        raise InvalidInstrument("symbol", "two names of 2 to 12 capitals or digits, as BTC-USD")
    for field, step in (("tick_size", tick_size), ("lot_size", lot_size)):
        _check_step(field, step)
    price_limit = tick_size * MAX_PRICE_TICKS_DEFAULT if max_price is None else max_price
    lots_limit = lot_size * MAX_QUANTITY_LOTS_DEFAULT if max_quantity is None else max_quantity
    _check_limit("max_price", price_limit, tick_size)
    _check_limit("max_quantity", lots_limit, lot_size)
    return Instrument(
        symbol=symbol,
        tick_size=tick_size,
        lot_size=lot_size,
        max_price=price_limit,
        max_quantity=lots_limit,
    )


def _check_step(field: str, step: Decimal) -> None:
    if step <= 0 or step.adjusted() > MAX_DECIMALS:
        raise InvalidInstrument(field, "must be greater than zero and at most 1e18")
    if _decimals(step) > MAX_DECIMALS or len(step.as_tuple().digits) > MAX_DECIMALS:
        raise InvalidInstrument(field, f"at most {MAX_DECIMALS} digits and decimals")


def _check_limit(field: str, limit: Decimal, step: Decimal) -> None:
    if limit <= 0 or abs(limit.adjusted()) > MAX_NUMBER_TEXT:
        raise InvalidInstrument(field, "must be greater than zero and in range")
    numerator, denominator = limit.as_integer_ratio()
    step_numerator, step_denominator = step.as_integer_ratio()
    units, rest = divmod(numerator * step_denominator, denominator * step_numerator)
    if rest:
        raise InvalidInstrument(field, f"must be a multiple of {step:f}")
    if units >= EXACT_LIMIT:
        raise InvalidInstrument(field, "must stay below 2^53 steps, the limit of exact integers")


def _pair(symbol: str, tick_size: str, lot_size: str) -> Instrument:
    return list_instrument(symbol, Decimal(tick_size), Decimal(lot_size))


DEFAULT_INSTRUMENTS = (
    _pair("BTC-USD", "0.01", "0.00000001"),
    _pair("ETH-USD", "0.01", "0.00000001"),
    _pair("SOL-USD", "0.01", "0.00000001"),
    _pair("BNB-USD", "0.01", "0.00000001"),
    _pair("XRP-USD", "0.0001", "0.000001"),
    _pair("ADA-USD", "0.0001", "0.000001"),
    _pair("DOGE-USD", "0.00001", "0.1"),
    _pair("AVAX-USD", "0.01", "0.00000001"),
    _pair("MATIC-USD", "0.0001", "0.1"),
    _pair("DOT-USD", "0.001", "0.000001"),
)
"""What a new installation trades. Ticks and lots follow Coinbase Exchange's increments (2024)."""
