"""How schemathesis writes bodies of many readings: lines are text as it is, and what follows its length is one record."""

import schemathesis


def encoded(value):
    return value if isinstance(value, bytes) else getattr(value, "data", str(value).encode())


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    return encoded(value)


@schemathesis.serializer("application/vnd.forebay.records")
def delimited(_context, value):
    record, length = encoded(value), bytearray()
    rest = len(record)
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*length, rest]) + record
