"""How schemathesis writes bodies of many readings: lines are text as it is, and what follows its length is one record. What is no
text is nothing, which the contract forbids as it does another type."""

import schemathesis


def encoded(value):
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else getattr(value, "data", b"")


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    return encoded(value)


@schemathesis.serializer("application/vnd.forebay.records")
def delimited(_context, value):
    record, length = encoded(value) or b"x", bytearray()  # bytes of any kind are valid, none are not
    rest = len(record)
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*length, rest]) + record
