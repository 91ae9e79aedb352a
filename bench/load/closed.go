package main

import (
	"encoding/json"
	"os"
	"slices"
	"sync"
	"time"
)

// tally is what one connection has counted.
type tally struct {
	statuses  map[int]int
	errors    int
	latencies []int64 // microseconds
}

// A closed loop: every connection sends its next poll when the last one is answered, so a slow server is asked less
// often. Requests a second are the server's capacity; the latencies are those under full load and no promise to a
// machine that polls every three seconds.
func runClosed(asked options) {
	asked.connections = min(asked.connections, len(asked.machines)) // each has a machine, at least
	begin := time.Now().Add(asked.warm)
	end := begin.Add(asked.seconds)
	if asked.rounds > 0 {
		begin, end = time.Now(), time.Time{}
	}
	var all sync.WaitGroup
	tallies := make([]tally, asked.connections)
	for number := range asked.connections {
		all.Add(1)
		go func() {
			defer all.Done()
			tallies[number] = pollOn(&asked, number, begin, end)
		}()
	}
	all.Wait()
	tell(tallies, min(time.Since(begin), within(asked)))
}

func within(asked options) time.Duration {
	if asked.rounds > 0 {
		return time.Hour
	}
	return asked.seconds
}

func pollOn(asked *options, number int, begin, end time.Time) tally {
	counted := tally{statuses: map[int]int{}}
	var w *wire
	for round := 0; asked.rounds == 0 || round < asked.rounds; round++ {
		for at := number; at < len(asked.machines); at += asked.connections {
			sent := time.Now()
			if !end.IsZero() && !sent.Before(end) {
				return counted
			}
			got, err := once(asked, &w, asked.machines[at])
			switch {
			case sent.Before(begin):
			case err != nil:
				counted.errors++
				time.Sleep(10 * time.Millisecond)
			case end.IsZero() || !got.at.After(end):
				counted.statuses[got.status]++
				counted.latencies = append(counted.latencies, got.at.Sub(sent).Microseconds())
			}
		}
	}
	return counted
}

// once makes the connection where there is none, and leaves none where it did not last.
func once(asked *options, w **wire, m *machine) (answer, error) {
	var got answer
	var err error
	if *w == nil {
		if *w, err = dial(asked.target.Host); err != nil {
			return got, err
		}
	}
	if err = (*w).poll(asked, m); err == nil {
		got, err = (*w).receive()
	}
	if err != nil || got.closes {
		_ = (*w).conn.Close()
		*w = nil
	}
	if got.lastUpdate != "" {
		m.lastUpdate = got.lastUpdate
	}
	return got, err
}

func tell(tallies []tally, took time.Duration) {
	statuses, failures := map[int]int{}, 0
	var latencies []int64
	for _, each := range tallies {
		for status, count := range each.statuses {
			statuses[status] += count
		}
		failures += each.errors
		latencies = append(latencies, each.latencies...)
	}
	slices.Sort(latencies)
	part := func(share float64) int64 {
		if len(latencies) == 0 {
			return 0
		}
		return latencies[min(len(latencies)-1, int(share*float64(len(latencies))))]
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": len(latencies), "seconds": took.Seconds(), "statuses": statuses, "errors": failures,
		"p50_us": part(0.50), "p99_us": part(0.99), "p999_us": part(0.999), "cpu": cpu(),
	})
}
