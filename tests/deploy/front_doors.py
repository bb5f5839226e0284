"""How schemathesis asks the front doors: as the device plc-7, and what is exported is bytes of any kind."""

import schemathesis
from many_readings import encoded


@schemathesis.serializer("application/x-protobuf")
def exported(_context, value):
    return encoded(value)


@schemathesis.hook
def map_path_parameters(_context, values):
    return {name: "plc-7" if name == "id" else value for name, value in (values or {}).items()}
