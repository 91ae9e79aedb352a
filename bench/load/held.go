package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const dialling = 256 // connections that are made at the same time; the rest wait in line

// told is one answer that a machine got, or the end of its connection (status 0).
type told struct {
	machine int
	status  int
	at      int64 // wall clock, nanoseconds, of the last byte
	waited  int64 // nanoseconds since the poll was sent
	job     int64
	echoed  bool
}

// machines is every machine of a run and what became of its polls.
type machines struct {
	asked    *options
	waiting  atomic.Int64 // polls without an answer that echo a value: what a server may hold
	open     atomic.Int64 // connections
	jobs     atomic.Int64
	reported atomic.Int64
	vain     atomic.Int64 // 204 before the hold's end, but for the first poll after a job, which knows only old news
	ended    atomic.Int64 // 204 at the hold's end
	refused  atomic.Int64 // any other status
	lost     atomic.Int64 // connections that ended, but for those hung up on purpose

	lock    sync.Mutex
	answers []told
	wires   map[int]*wire
	hung    map[int]bool
}

func runHeld(asked options) {
	all := &machines{asked: &asked, wires: map[int]*wire{}, hung: map[int]bool{}}
	line := make(chan struct{}, dialling)
	for number := range asked.machines {
		go all.live(number, line)
	}
	commands := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	for commands.Scan() {
		words := strings.Fields(commands.Text())
		if len(words) == 0 {
			continue
		}
		_ = json.NewEncoder(out).Encode(all.obey(words))
		_ = out.Flush()
	}
}

func (all *machines) obey(words []string) any {
	switch words[0] {
	case "counts":
		return map[string]any{
			"waiting": all.waiting.Load(), "open": all.open.Load(), "jobs": all.jobs.Load(), "vain": all.vain.Load(),
			"ended": all.ended.Load(), "refused": all.refused.Load(), "lost": all.lost.Load(),
			"reported": all.reported.Load(), "cpu": cpu(),
		}
	case "drain":
		return all.drain()
	case "hangup":
		number, _ := strconv.Atoi(words[len(words)-1])
		return all.hangUp(number)
	}
	return fmt.Sprintf("there is no command %s", words[0])
}

// drain hands over the answers since the last time: machine, status, time, how long it waited, job, whether it echoed.
func (all *machines) drain() [][6]int64 {
	all.lock.Lock()
	answers := all.answers
	all.answers = nil
	all.lock.Unlock()
	rows := make([][6]int64, 0, len(answers))
	for _, each := range answers {
		echoed := int64(0)
		if each.echoed {
			echoed = 1
		}
		rows = append(rows, [6]int64{int64(each.machine), int64(each.status), each.at, each.waited, each.job, echoed})
	}
	return rows
}

// hangUp closes so many connections, as machines that are stopped do, and says which machines they were.
func (all *machines) hangUp(number int) []int {
	all.lock.Lock()
	defer all.lock.Unlock()
	gone := []int{}
	for which, w := range all.wires {
		if len(gone) == number {
			break
		}
		if !all.hung[which] {
			all.hung[which] = true
			_ = w.conn.Close()
			gone = append(gone, which)
		}
	}
	return gone
}

// live is the life of one machine: it polls, waits a moment after each answer, and polls again.
func (all *machines) live(number int, line chan struct{}) {
	line <- struct{}{}
	w, err := dial(all.asked.target.Host)
	<-line
	if err != nil {
		all.lost.Add(1)
		return
	}
	all.open.Add(1)
	all.lock.Lock()
	all.wires[number] = w
	all.lock.Unlock()
	m := all.asked.machines[number]
	last := 0
	for {
		got, err := all.ask(number, w, m, last == 201)
		if err != nil || got.closes {
			all.leave(number, w)
			return
		}
		if last != 0 && got.status != 201 { // the first answer only tells the value to echo
			time.Sleep(all.asked.pause)
		}
		last = got.status
	}
}

func (all *machines) ask(number int, w *wire, m *machine, afterJob bool) (answer, error) {
	echoed := m.lastUpdate != ""
	sent := time.Now()
	if err := w.poll(all.asked, m); err != nil {
		return answer{}, err
	}
	if echoed {
		all.waiting.Add(1)
	}
	got, err := w.receive()
	if echoed {
		all.waiting.Add(-1)
	}
	if err != nil {
		got.at = time.Now()
	}
	if got.lastUpdate != "" {
		m.lastUpdate = got.lastUpdate
	}
	note := told{number, got.status, got.at.UnixNano(), got.at.Sub(sent).Nanoseconds(), 0, echoed}
	if err == nil {
		note.job = all.count(w, got, note, afterJob)
	} else {
		note.status = 0
	}
	all.lock.Lock()
	all.answers = append(all.answers, note)
	all.lock.Unlock()
	return got, err
}

// count returns the number of the job that the answer hands out, if it does.
func (all *machines) count(w *wire, got answer, note told, afterJob bool) int64 {
	switch {
	case got.status == 201:
		all.jobs.Add(1)
		return all.take(w, got)
	case got.status != 204:
		all.refused.Add(1)
	case afterJob:
	case note.echoed && time.Duration(note.waited) < all.asked.hold*8/10:
		all.vain.Add(1)
	case note.echoed:
		all.ended.Add(1)
	}
	return 0
}

func (all *machines) take(w *wire, got answer) int64 {
	var job struct {
		ID    int64  `json:"id"`
		Token string `json:"token"`
	}
	if err := json.Unmarshal(got.body, &job); err != nil || !all.asked.report {
		return job.ID
	}
	body := []byte(`{"info":` + all.asked.info + `,"token":"` + job.Token + `","state":"success"}`)
	if err := w.send(all.asked, "PUT", fmt.Sprintf("/api/v4/jobs/%d", job.ID), job.Token, body); err != nil {
		return job.ID
	}
	if heard, err := w.receive(); err == nil && heard.status == 200 {
		all.reported.Add(1)
	}
	return job.ID
}

func (all *machines) leave(number int, w *wire) {
	_ = w.conn.Close()
	all.open.Add(-1)
	all.lock.Lock()
	defer all.lock.Unlock()
	delete(all.wires, number)
	if !all.hung[number] {
		all.lost.Add(1)
	}
}
