// Buffers lines of standard input as readings, and posts what waits in one request, gzipped, until each is safe or refused for good.
//
//	go build -o buffer buffer.go
//	buffer https://ingest.example.com:8443 ca.pem device.pem device.key boot-17 <readings
//
// The last argument tells this start of the device from all others. Exit code: 0 all are safe, 1 some are not, 2 arguments or files
// are wrong.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	answerTimeout = 15 * time.Second
	waitMin       = time.Second
	waitMax       = 5 * time.Minute
	noAnswer      = 0
	batchMax      = 100    // readings in one request: no more than the device's burst
	bufferMax     = 10_000 // readings that wait; then standard input does
	bootMax       = 50     // a key has 58 at most
)

var (
	again   = map[int]bool{noAnswer: true, 408: true, 429: true, 503: true, 504: true}
	tooMuch = map[string]bool{"too-many-records": true, "body-too-large": true}
	// Where the whole request is refused: the certificate or the address is wrong, for all others too.
	stop = map[int]bool{403: true, 404: true, 405: true, 421: true}
)

type device struct {
	url    string
	tls    *tls.Config
	client *http.Client
}

type answer struct {
	status     int
	retryAfter time.Duration
	problem    problem
}

type problem struct {
	Code    string
	Records *struct { // what is in neither list is safe
		Retry    []int
		Rejected []struct {
			Index int
			Code  string
		}
	}
}

type refusal struct {
	reading []byte
	code    string
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 6 || len(os.Args[5]) > bootMax {
		fail("usage: buffer URL CA CERTIFICATE KEY BOOT <readings; BOOT has 50 characters at most")
	}
	config, err := newConfig(os.Args[2], os.Args[3], os.Args[4])
	if err != nil {
		fail(err)
	}
	device := &device{url: os.Args[1] + "/v1/telemetry/records", tls: config}
	device.connect()
	lines := make(chan []byte, bufferMax)
	go read(lines)
	if !device.deliver(os.Args[5], lines) {
		os.Exit(1)
	}
}

func fail(why any) {
	log.Print(why)
	os.Exit(2)
}

func newConfig(ca, certificate, key string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New(ca + ": has no certificate")
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
}

// connect makes a client, which opens its connection with the first request, keeps it, and opens another after a close. It speaks
// HTTP/2 where the server does.
func (d *device) connect() {
	transport := &http.Transport{TLSClientConfig: d.tls.Clone(), ForceAttemptHTTP2: true}
	d.client = &http.Client{Transport: transport, Timeout: answerTimeout}
}

func read(lines chan<- []byte) {
	defer close(lines) // there are no more
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadBytes('\n') // of any length
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			lines <- line
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}

// fill waits for a reading where there is none, and takes those that wait with it.
func fill(batch [][]byte, lines <-chan []byte, size int) [][]byte {
	if len(batch) == 0 {
		if line, ok := <-lines; ok {
			batch = append(batch, line)
		}
	}
	for len(batch) < size {
		select {
		case line, ok := <-lines:
			if !ok {
				return batch
			}
			batch = append(batch, line)
		default:
			return batch
		}
	}
	return batch
}

// deliver sends all readings, and says whether all of them are safe.
func (d *device) deliver(boot string, lines <-chan []byte) bool {
	var batch [][]byte
	size, number, failures, allSafe := batchMax, 1, 0, true
	for {
		batch = fill(batch, lines, size)
		if len(batch) == 0 {
			return allSafe
		}
		sent := batch
		if len(sent) > size {
			sent = sent[:size]
		}
		name := fmt.Sprintf("%s-%06d", boot, number)
		answer := d.post(name, sent)
		if tooMuch[answer.problem.Code] && len(sent) > 1 {
			size, number = len(sent)/2, number+1
			continue
		}
		left, refused := judge(answer, sent)
		for _, refusal := range refused {
			allSafe = false
			log.Printf("%s: refused, %s: %.100q", name, refusal.code, refusal.reading)
		}
		if stop[answer.status] && answer.problem.Records == nil {
			return false
		}
		if len(left) < len(sent) {
			number++ // a key names readings by their place: others have another key
		}
		batch = append(left, batch[len(sent):]...)
		if len(left) == 0 {
			failures = 0
			continue
		}
		wait := backoff(failures)
		if wait < answer.retryAfter {
			wait = answer.retryAfter
		}
		log.Printf("%s: %d, %d again in %.1f s", name, answer.status, len(left), wait.Seconds())
		time.Sleep(wait)
		failures++
	}
}

// judge returns the readings to send again, and those that are refused for good.
func judge(answer answer, sent [][]byte) (left [][]byte, refused []refusal) {
	if verdicts := answer.problem.Records; verdicts != nil {
		for _, index := range verdicts.Retry {
			left = append(left, sent[index])
		}
		for _, verdict := range verdicts.Rejected {
			refused = append(refused, refusal{sent[verdict.Index], verdict.Code})
		}
		return left, refused
	}
	if answer.status == http.StatusNoContent {
		return nil, nil
	}
	if again[answer.status] {
		return sent, nil
	}
	for _, reading := range sent {
		refused = append(refused, refusal{reading, fmt.Sprintf("%d %s", answer.status, answer.problem.Code)})
	}
	return nil, refused
}

func (d *device) post(name string, readings [][]byte) answer {
	var body bytes.Buffer
	encoder := gzip.NewWriter(&body)
	encoder.Write(bytes.Join(readings, []byte{'\n'})) // into memory, which does not fail
	encoder.Close()
	request, err := http.NewRequest(http.MethodPost, d.url, &body)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("Idempotency-Key", name)
	received, err := d.client.Do(request)
	if err != nil {
		return d.lost(name, err)
	}
	defer received.Body.Close()
	text, err := io.ReadAll(received.Body) // to the end, or the connection cannot be used again
	if err != nil {
		return d.lost(name, err)
	}
	seconds, _ := strconv.Atoi(received.Header.Get("Retry-After"))
	answer := answer{status: received.StatusCode, retryAfter: time.Duration(seconds) * time.Second}
	if received.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(text, &answer.problem); err != nil {
			return d.lost(name, err)
		}
	}
	return answer
}

// lost is no answer, after which it connects anew: HTTP/2 would go on with a connection that a NAT has forgotten in silence.
func (d *device) lost(name string, err error) answer {
	log.Printf("%s: %v", name, err)
	d.client.CloseIdleConnections()
	d.connect()
	return answer{status: noAnswer}
}

// backoff is doubled with each failure up to five minutes; and spread, so that a fleet does not come back as one.
func backoff(failures int) time.Duration {
	wait := waitMax
	if failures < 9 && waitMin<<failures < waitMax {
		wait = waitMin << failures
	}
	return time.Duration(float64(wait) * (0.5 + rand.Float64()))
}
