#!/usr/bin/env bash
# Collects Kafka's jars under $TOOLS/kafka/lib (target/tools unless set) from Maven Central, once.
set -euo pipefail
cd "$(dirname "$0")/.."
TOOLS="${TOOLS:-$PWD/target/tools}"
version=4.3.1
stamp="$TOOLS/stamps/kafka-$version"
[ -e "$stamp" ] && exit 0
mkdir -p "$TOOLS/stamps" "$TOOLS/kafka"
cat > "$TOOLS/kafka/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>forebay</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.25.5</version></dependency>
  </dependencies>
</project>
POM
mvn -q -B -f "$TOOLS/kafka/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$TOOLS/kafka/lib"
touch "$stamp"
