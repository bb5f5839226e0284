// Exports spans, metrics and logs by OpenTelemetry's SDK for Go, and says of each export whether it
// was taken, with its body. Address and certificates come by the variables that every SDK has:
//
//	OTEL_EXPORTER_OTLP_ENDPOINT=https://localhost:8443 OTEL_EXPORTER_OTLP_CERTIFICATE=ca.pem \
//	OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=device.pem OTEL_EXPORTER_OTLP_CLIENT_KEY=device.key \
//	otel-sdk EXPORTS
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otellog "go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Long enough for an outage: what is sent again is sent within it.
const patience = 2 * time.Minute

var (
	press = resource.NewSchemaless(attribute.String("service.name", "press-7"))

	// echo takes every export beside the gateway, and its body is what was sent there: the SDK has
	// no other way to tell.
	echo   = httptest.NewTLSServer(http.HandlerFunc(hear))
	trust  = echo.Client().Transport.(*http.Transport).TLSClientConfig
	bodies = make(chan []byte, 1)
)

func hear(_ http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	must(err)
	bodies <- body
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// tell says of an export what became of it.
func tell(signal string, refused, unheard error) {
	must(unheard)
	if refused != nil {
		log.Print(refused)
	}
	line, err := json.Marshal(map[string]any{
		"signal": signal, "body": <-bodies, "taken": refused == nil,
	})
	must(err)
	fmt.Println(string(line))
}

type spans struct{ sdktrace.SpanExporter }

func (to spans) ExportSpans(ctx context.Context, data []sdktrace.ReadOnlySpan) error {
	refused := to.SpanExporter.ExportSpans(ctx, data)
	tell("traces", refused, heardSpans.ExportSpans(ctx, data))
	return refused
}

type metrics struct{ sdkmetric.Exporter }

func (to metrics) Export(ctx context.Context, data *metricdata.ResourceMetrics) error {
	refused := to.Exporter.Export(ctx, data)
	tell("metrics", refused, heardMetrics.Export(ctx, data))
	return refused
}

type logs struct{ sdklog.Exporter }

func (to logs) Export(ctx context.Context, data []sdklog.Record) error {
	refused := to.Exporter.Export(ctx, data)
	tell("logs", refused, heardLogs.Export(ctx, data))
	return refused
}

var (
	heardSpans   sdktrace.SpanExporter
	heardMetrics sdkmetric.Exporter
	heardLogs    sdklog.Exporter
)

func main() {
	exports, err := strconv.Atoi(os.Args[1])
	must(err)
	ctx := context.Background()
	tracers, meters, loggers := tracers(ctx), meters(ctx), loggers(ctx)
	tracer, logger := tracers.Tracer("press"), loggers.Logger("press")
	strokes, err := meters.Meter("press").Int64Counter("strokes")
	must(err)
	for number := range exports {
		_, span := tracer.Start(ctx, "stroke")
		span.SetAttributes(attribute.Int("number", number))
		span.End()
		strokes.Add(ctx, 1, metric.WithAttributes(attribute.String("line", "7")))
		if err := meters.ForceFlush(ctx); err != nil {
			log.Print(err)
		}
		var record otellog.Record
		record.SetBody(attribute.StringValue(fmt.Sprintf("stroke %d", number)))
		record.SetSeverity(otellog.SeverityInfo)
		logger.Emit(ctx, record)
	}
}

// Each exporter has a type of its own for the same fields.
var retry = otlptracehttp.RetryConfig{
	Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: patience,
}

func tracers(ctx context.Context) *sdktrace.TracerProvider {
	exporter, err := otlptracehttp.New(ctx,
		otlptracehttp.WithTimeout(patience),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig(retry)))
	must(err)
	heardSpans, err = otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(echo.URL), otlptracehttp.WithTLSClientConfig(trust))
	must(err)
	return sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans{exporter}), sdktrace.WithResource(press))
}

func meters(ctx context.Context) *sdkmetric.MeterProvider {
	exporter, err := otlpmetrichttp.New(ctx,
		otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression),
		otlpmetrichttp.WithTimeout(patience),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig(retry)))
	must(err)
	heardMetrics, err = otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(echo.URL), otlpmetrichttp.WithTLSClientConfig(trust))
	must(err)
	reader := sdkmetric.NewPeriodicReader(metrics{exporter},
		sdkmetric.WithInterval(time.Hour), sdkmetric.WithTimeout(patience))
	return sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(press))
}

func loggers(ctx context.Context) *sdklog.LoggerProvider {
	exporter, err := otlploghttp.New(ctx,
		otlploghttp.WithCompression(otlploghttp.GzipCompression),
		otlploghttp.WithTimeout(patience),
		otlploghttp.WithRetry(otlploghttp.RetryConfig(retry)))
	must(err)
	heardLogs, err = otlploghttp.New(ctx, otlploghttp.WithEndpointURL(echo.URL), otlploghttp.WithTLSClientConfig(trust))
	must(err)
	processor := sdklog.NewSimpleProcessor(logs{exporter})
	return sdklog.NewLoggerProvider(sdklog.WithProcessor(processor), sdklog.WithResource(press))
}
