"""Reads KPL aggregates with AWS's own library: a record's data in base64 a line on stdin, a JSON list of what it holds a
line on stdout. A record that is no aggregate holds itself."""

import base64
import json
import sys

import aws_kinesis_agg
from aws_kinesis_agg import deaggregator, messages_pb2


def record_ids(data):
    """The library leaves the tags out."""
    message = messages_pb2.AggregatedRecord()
    message.ParseFromString(data[len(aws_kinesis_agg.MAGIC):-aws_kinesis_agg.DIGEST_SIZE])
    return [{tag.key: tag.value for tag in record.tags}.get("record-id") for record in message.records]


def read(line):
    kinesis = {"kinesisSchemaVersion": "1.0", "sequenceNumber": "1", "approximateArrivalTimestamp": 0,
               "partitionKey": "", "data": line}
    records = [record["kinesis"] for record in deaggregator.deaggregate_records([{"kinesis": kinesis}])]
    if not any(record.get("aggregated") for record in records):
        return [{"data": line}]
    ids = record_ids(base64.b64decode(line))
    return [
        {
            "partition_key": record["partitionKey"],
            "hash_key": record["explicitHashKey"],
            "id": ids[record["subSequenceNumber"]],
            "data": record["data"].decode(),
        }
        for record in records
    ]


for line in sys.stdin:
    print(json.dumps(read(line.strip())))
