"""Exports spans, metrics and logs by OpenTelemetry's SDK with a client certificate, and says of each export whether it was
taken, with its body.

    python tests/clients/otlp_sdk.py https://localhost:8443 ca.pem device.pem device.key EXPORTS
"""

import base64
import json
import sys
import threading

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

ENDPOINT, CA, CERT, KEY, EXPORTS = sys.argv[1:]
RESOURCE = Resource.create({"service.name": "press-7"})

# Long enough for an outage: what is sent again is sent within it.
TIMEOUT_SECONDS = 120

telling = threading.Lock()


def tell(signal, body, result):
    line = {"signal": signal, "body": base64.b64encode(body).decode(), "taken": result.name == "SUCCESS"}
    with telling:
        print(json.dumps(line), flush=True)


def telling_of(exporter, signal, encode):
    """The exporter, which says of each export what became of it."""
    export = exporter.export

    def export_and_tell(data, *arguments, **options):
        result = export(data, *arguments, **options)
        tell(signal, encode(data).SerializePartialToString(), result)
        return result

    exporter.export = export_and_tell
    return exporter


def options(signal, compression):
    return dict(endpoint=f"{ENDPOINT}/v1/{signal}", certificate_file=CA, client_certificate_file=CERT,
                client_key_file=KEY, timeout=TIMEOUT_SECONDS, compression=compression)


spans = telling_of(OTLPSpanExporter(**options("traces", Compression.NoCompression)), "traces", encode_spans)
metrics = telling_of(OTLPMetricExporter(**options("metrics", Compression.Gzip)), "metrics", encode_metrics)
logs = telling_of(OTLPLogExporter(**options("logs", Compression.Gzip)), "logs", encode_logs)

tracers = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
tracers.add_span_processor(SimpleSpanProcessor(spans))
reader = PeriodicExportingMetricReader(metrics, export_interval_millis=float("inf"),
                                       export_timeout_millis=TIMEOUT_SECONDS * 1000)
meters = MeterProvider([reader], resource=RESOURCE, shutdown_on_exit=False)
loggers = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))

tracer, logger = tracers.get_tracer("press"), loggers.get_logger("press")
strokes = meters.get_meter("press").create_counter("strokes")
for number in range(int(EXPORTS)):
    with tracer.start_as_current_span("stroke", attributes={"number": number}):
        pass
    strokes.add(1, {"line": "7"})
    reader.collect(timeout_millis=TIMEOUT_SECONDS * 1000)
    logger.emit(LogRecord(body=f"stroke {number}", severity_number=SeverityNumber.INFO, timestamp=number + 1))
