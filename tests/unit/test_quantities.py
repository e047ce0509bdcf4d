"""Quantities mean what systemd means by them; systemd itself is asked where it can be."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unitmem.text import (
    SIZE_UNITS,
    SPAN_UNITS,
    QuantityError,
    format_percent,
    format_rate,
    format_size,
    format_span,
    parse_percent,
    parse_rate,
    parse_size,
    parse_span,
    spell_rate,
    spell_size,
)

K, M, G, T = 1 << 10, 1 << 20, 1 << 30, 1 << 40

# --- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("17B", 17),
        ("512K", 512 * K),
        ("512M", 1 << 29),
        ("1.5G", 3 * G // 2),
        ("1.2G", 1288490188),
        ("0.5B", 0),
        ("1G 512M", 3 * G // 2),
        ("1G512M", 3 * G // 2),
        ("  2 T ", 2 * T),
        ("1P", 1 << 50),
        ("15E", 15 << 60),
        ("16383P 1023T 1023G 1023M 1023K 1023B", (1 << 64) - 1),
    ],
)
def test_a_size_is_read_in_powers_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "a size is missing here: write it like 512M"),
        ("   ", "a size is missing here"),
        ("512", "has no unit: write 512M for mebibytes, or 512B"),
        ("1G 512", "has no unit: write 512M"),
        ("512m", "write 512M, which is a power of 1024"),
        ("512MB", "write 512M"),
        ("512MiB", "write 512M"),
        ("512kb", "write 512K"),
        ("512Q", "use one of B K M G T P E"),
        ("512M 1G", "out of order: write the larger first"),
        ("1G 1G", "out of order"),
        ("16E", "more than 16E"),
        ("99999999999999999999B", "more than 16E"),
        ("9" * 5000 + "M", "more digits than a size needs: write it like 512M"),
        ("1." + "9" * 5000 + "M", "more digits"),
        ("-1M", "write it like 512M"),
        ("+1M", "write it like 512M"),
        ("M", "write it like 512M"),
        (".5G", "write it like 512M"),
        ("0x10M", "there is no unit 'x': use one of"),
        ("1e3M", "no power of ten is read here: write the number out"),
        ("1.5 GiB", "write 1.5G,"),
        ("2.5GB", "write 2.5G,"),
        ("1.5", "write 1.5M for mebibytes"),
        ("1e9", "no power of ten"),
        ("1,5G", "has a comma: write 1.5G"),
        ("٣M", "write it like 512M"),
        ("512\xa0M", "write it like 512M"),
        ("max", "write it like 512M"),
        ("80%", "write it like 512M"),
    ],
)
def test_a_bad_size_is_refused_with_what_to_write_instead(text, hint):
    with pytest.raises(QuantityError) as caught:
        parse_size(text)
    assert hint in str(caught.value)


# what `systemctl show` and `systemctl status` print by FORMAT_BYTES() of systemd 252
@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (0, "0B"),
        (1, "1B"),
        (1023, "1023B"),
        (K, "1.0K"),
        (K + 102, "1.0K"),
        (K + 103, "1.1K"),
        (2 * K - 1, "1.9K"),
        (M - 1, "1023.9K"),
        (M, "1.0M"),
        (512 * M, "512.0M"),
        (1288490188, "1.1G"),
        (3 * G // 2, "1.5G"),
        (T, "1.0T"),
        (1 << 50, "1.0P"),
        (1 << 60, "1.0E"),
        ((1 << 64) - 1, "15.9E"),
        (-3 * M // 2, "-1.5M"),
    ],
)
def test_a_size_is_written_as_systemctl_prints_it(size, text):
    assert format_size(size) == text


sizes = st.integers(0, (1 << 64) - 1) | st.builds(
    lambda tenths, unit: tenths * unit // 10, st.integers(0, 10239), st.sampled_from([K, M, G, T])
)


@given(size=sizes)
def test_a_size_written_is_never_more_than_the_size_and_less_by_under_a_tenth(size):
    text = format_size(size)
    unit = SIZE_UNITS[text[-1]]
    assert 0 <= size - parse_size(text) <= unit // 10 + 1


@given(size=sizes)
def test_a_size_spelled_is_read_back_to_the_byte(size):
    assert parse_size(spell_size(size)) == size


@pytest.mark.parametrize(
    ("given_as", "spelled"),
    [
        ("0B", "0B"),
        ("17B", "17B"),
        ("512M", "512.0M"),
        ("1.2G", "1.2G"),
        ("1.25G", "1G 256.0M"),
        ("1G 1B", "1G 1B"),
    ],
)
def test_a_size_is_spelled_with_one_digit_where_that_is_enough(given_as, spelled):
    assert spell_size(parse_size(given_as)) == spelled


# --- spans -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("30s", 30),
        ("1min 30s", 90),
        ("1min30s", 90),
        ("30s 1min", 90),
        ("1.5h", 5400),
        ("100ms", 0.1),
        ("1500us", 0.0015),
        ("7µs", 7e-6),  # the micro sign
        ("7μs", 7e-6),  # the Greek letter
        ("1m", 60),
        ("1M", 2629800),
        ("1month", 2629800),
        ("2 weeks", 1209600),
        ("1y", 31557600),
    ],
)
def test_a_span_is_read_by_the_units_of_systemd_time(text, seconds):
    assert parse_span(text) == seconds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "a time span is missing here: write it like 30s"),
        ("30", "has no unit: write 30s for seconds or 30min for minutes"),
        ("1min 30", "has no unit: write 30s"),
        ("1.5", "has no unit: write 1.5s for seconds or 1.5min for minutes"),
        ("1.5 Hours", "write 1.5hours"),
        ("1,5s", "has a comma: write 1.5s"),
        ("10:30", "write it like 30s"),
        ("30S", "there is no unit 'S': write 30s"),
        ("5Min", "write 5min"),
        ("1fortnight", "use one of ms s min h d w"),
        ("-5s", "write it like 30s"),
        ("1.s", "write it like 30s"),
        (".5s", "write it like 30s"),
        ("٣s", "write it like 30s"),
        ("infinity", "write it like 30s"),
        ("600000y", "longer than systemd can count"),
        ("9" * 5000 + "s", "more digits than a time span needs: write it like 30s"),
        ("1e3s", "there is no unit 'e'"),
        ("512M%", "write it like 30s"),
    ],
)
def test_a_bad_span_is_refused_with_what_to_write_instead(text, hint):
    with pytest.raises(QuantityError) as caught:
        parse_span(text)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "accuracy", "text"),
    [
        (0, 1, "0"),
        (-3, 1, "0"),
        (0.000_007, 1, "7us"),
        (0.1, 1, "100ms"),
        (0.999_6, 1, "999ms"),
        (1, 1, "1s"),
        (1.9, 1, "1s"),
        (1.5, 0.001, "1.5s"),
        (59.999_9, 0.000_1, "59.9999s"),
        (90, 1, "1min 30s"),
        (61.5, 0.001, "1min 1.5s"),
        (3600, 1, "1h"),
        (90061, 1, "1d 1h 1min 1s"),
        (90061, 60, "1d 1h 1min"),
        (30, 60, "30s"),
        (2629800, 1, "1month"),
    ],
)
def test_a_span_is_written_in_the_largest_units_that_fit(seconds, accuracy, text):
    assert format_span(seconds, accuracy) == text


@given(milliseconds=st.integers(0, 10**12))
def test_a_span_written_to_the_millisecond_is_read_back(milliseconds):
    text = format_span(milliseconds / 1000, accuracy=0.001)
    assert text == "0" or parse_span(text) == milliseconds / 1000


# --- spans, by systemd itself ------------------------------------------------------------------

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze, the oracle, is not installed"
)


def systemd_spans(texts):
    """(microseconds, as systemd writes it) of each span in `texts`, by one run of systemd-analyze."""
    output = subprocess.run(
        ["systemd-analyze", "timespan", *texts], check=True, capture_output=True, text=True
    ).stdout
    answers = [
        dict(line.strip().split(": ", 1) for line in block.splitlines()) for block in output.split("\n\n")
    ]
    return [(int(answer["μs"]), answer["Human"]) for answer in answers]


numbers = st.integers(0, 3000).map(str) | st.from_regex(r"[0-9]{1,3}\.[0-9]{1,12}", fullmatch=True)
terms = st.builds("{}{}{}".format, numbers, st.sampled_from(["", " "]), st.sampled_from(SPAN_UNITS))
spans = st.lists(terms, min_size=1, max_size=4).map(" ".join)


@needs_systemd_analyze
@settings(max_examples=15)
@given(texts=st.lists(spans, min_size=1, max_size=200))
def test_a_span_is_as_long_as_systemd_takes_it_to_be(texts):
    # divided alike, so that spans of centuries, which a float can't hold to the microsecond, agree as well
    assert [parse_span(text) for text in texts] == [usec / 1_000_000 for usec, _ in systemd_spans(texts)]


@needs_systemd_analyze
@settings(max_examples=15)
@given(
    spans=st.lists(
        st.integers(1, 10**10).map(float) | st.integers(1, 999).map(lambda ms: ms / 1000),
        min_size=1,
        max_size=200,
    )
)
def test_a_whole_span_is_written_as_systemd_writes_it(spans):
    texts = [f"{round(span * 1000)}ms" for span in spans]
    assert [format_span(span) for span in spans] == [human for _, human in systemd_spans(texts)]


# --- percentages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "percent"), [("80%", 80), ("62.5%", 62.5), (" 0 % ", 0), ("100.00%", 100), ("250%", 250)]
)
def test_a_percentage_is_the_number_before_its_sign(text, percent):
    assert parse_percent(text) == percent


@pytest.mark.parametrize(
    "text",
    ["", "%", "80", "-1%", "8 0%", "80%%", "80.%", ".5%", "1e2%", "٣%", "nan%", "inf%", "9" * 400 + "%"],
)
def test_what_is_no_percentage_is_refused_with_an_example(text):
    with pytest.raises(QuantityError, match="is not a percentage: write it like 80%"):
        parse_percent(text)


@pytest.mark.parametrize(("percent", "text"), [(None, "-"), (0, "0.0%"), (62.55, "62.5%"), (100, "100.0%")])
def test_a_percentage_is_written_with_one_digit(percent, text):
    assert format_percent(percent) == text


# --- rates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("512K/s", 512 * K),
        ("6M/min", 6 * M / 60),
        (" 6 M / min ", 6 * M / 60),
        ("1G 512M/h", 3 * G / 2 / 3600),
        ("1G/d", G / 86400),
        ("0B/min", 0),
        ("1B/ms", 1000),
        ("1M/M", M / 2629800),  # mebibytes, and months
    ],
)
def test_a_rate_is_a_size_in_one_unit_of_time(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "write it like 5M/min"),
        ("5M", "write it like 5M/min"),
        ("5M/", "write it like 5M/min"),
        ("5M/10min", "write it like 5M/min"),
        ("5M/jiffy", "'jiffy' is not a unit of time"),
        ("5M/MIN", "'MIN' is not a unit of time"),
        ("5M/min/min", "'min/min' is not a unit of time"),
        ("/min", "a size is missing here: write it like 512M"),
        ("5/min", "has no unit: write 5M"),
        ("-5M/min", "write it like 512M"),
        ("5%/min", "write it like 512M"),
        ("16E/s", "more than 16E"),
    ],
)
def test_a_bad_rate_is_refused_with_what_to_write_instead(text, hint):
    with pytest.raises(QuantityError) as caught:
        parse_rate(text)
    assert hint in str(caught.value)


@given(size=sizes, unit=st.sampled_from(SPAN_UNITS))
@example(size=(1 << 64) - 1, unit="us")  # as a float it is more than any size
def test_a_rate_spelled_is_read_back_to_the_last_bit(size, unit):
    rate = parse_rate(f"{size}B/{unit}")
    assert parse_rate(spell_rate(rate)) == rate


@pytest.mark.parametrize(
    ("given_as", "spelled"),
    [
        ("0B/s", "0B/min"),
        ("5M/min", "5.0M/min"),
        ("1M/s", "60.0M/min"),
        ("1M/h", "1.0M/h"),
        ("7B/d", "7B/d"),
        ("16383P/us", "15E 1023.0P/us"),
    ],
)
def test_a_rate_is_spelled_by_the_minute_where_that_is_exact(given_as, spelled):
    assert spell_rate(parse_rate(given_as)) == spelled


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "0B/min"), (0.01, "0B/min"), (M / 60, "1.0M/min"), (-M / 60, "-1.0M/min"), (G, "60.0G/min")],
)
def test_a_rate_is_written_by_the_minute(rate, text):
    assert format_rate(rate) == text


# --- whatever is written -----------------------------------------------------------------------


@given(text=st.text() | st.text("0123456789.BKMsmin%/ "))
@pytest.mark.parametrize("parse", [parse_size, parse_span, parse_percent, parse_rate])
def test_any_text_is_a_quantity_of_at_least_0_or_refused(parse, text):
    try:
        quantity = parse(text)
    except QuantityError:
        return
    # a rate may have a microsecond for its unit
    assert 0 <= quantity < 2**64 * (1_000_000 if parse is parse_rate else 1)
