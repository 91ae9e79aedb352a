package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Every line of an answer's head fits in here; bodies are read past it.
const bufferSize = 2048

// net/http would cost the client as much as the portal pays for a poll, on a machine that they share.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	out  bytes.Buffer
}

type machine struct {
	token      string
	systemID   string
	lastUpdate string
}

type answer struct {
	status     int
	lastUpdate string
	body       []byte
	closes     bool
	at         time.Time // of the last byte
}

var requestIDs atomic.Uint64

func dial(host string) (*wire, error) {
	conn, err := net.DialTimeout("tcp", host, 30*time.Second)
	if err != nil {
		return nil, err
	}
	return &wire{conn: conn, in: bufio.NewReaderSize(conn, bufferSize)}, nil
}

func (w *wire) send(asked *options, method, path, token string, body []byte) error {
	w.out.Reset()
	fmt.Fprintf(&w.out, "%s %s%s HTTP/1.1\r\nHost: %s\r\n", method, strings.TrimRight(asked.target.Path, "/"), path, asked.target.Host)
	w.out.WriteString("User-Agent: gitlab-runner 18.6.6 (18-6-stable; go1.24.6; linux/amd64)\r\n")
	fmt.Fprintf(&w.out, "Content-Length: %d\r\nAccept: application/json\r\nContent-Type: application/json\r\n", len(body))
	fmt.Fprintf(&w.out, "Runner-Token: %s\r\nX-Request-Id: %032x\r\n\r\n", token, requestIDs.Add(1))
	w.out.Write(body)
	_, err := w.conn.Write(w.out.Bytes())
	return err
}

func (w *wire) poll(asked *options, m *machine) error {
	var body bytes.Buffer
	body.Grow(1200)
	body.WriteString(`{"info":`)
	body.WriteString(asked.info)
	body.WriteString(`,"token":"` + m.token + `","system_id":"` + m.systemID + `"`)
	if asked.echo && m.lastUpdate != "" {
		body.WriteString(`,"last_update":"` + m.lastUpdate + `"`)
	}
	body.WriteString("}")
	return w.send(asked, "POST", "/api/v4/jobs/request", m.token, body.Bytes())
}

func (w *wire) receive() (answer, error) {
	var got answer
	line, err := w.line()
	if err != nil {
		return got, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return got, errors.New("no HTTP answer")
	}
	if got.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return got, err
	}
	length, chunked := 0, false
	for {
		line, err = w.line()
		if err != nil {
			return got, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("x-gitlab-last-update")):
			got.lastUpdate = string(value)
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return got, err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("connection")):
			got.closes = bytes.EqualFold(value, []byte("close"))
		}
	}
	if got.status != 204 {
		got.body, err = w.content(length, chunked)
	}
	got.at = time.Now()
	return got, err
}

func (w *wire) content(length int, chunked bool) ([]byte, error) {
	if !chunked {
		body := make([]byte, length)
		_, err := io.ReadFull(w.in, body)
		return body, err
	}
	var body []byte
	for {
		line, err := w.line()
		if err != nil {
			return nil, err
		}
		size, err := strconv.ParseInt(string(line), 16, 32)
		if err != nil {
			return nil, err
		}
		piece := make([]byte, size+2) // and the end of its line
		if _, err = io.ReadFull(w.in, piece); err != nil {
			return nil, err
		}
		if size == 0 {
			return body, nil
		}
		body = append(body, piece[:size]...)
	}
}

func (w *wire) line() ([]byte, error) {
	line, err := w.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
