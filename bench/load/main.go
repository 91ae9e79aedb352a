// Command load plays many runner machines that poll a portal over keep-alive connections.
//
// `load closed` sends polls as fast as they are answered and counts them. `load held` keeps a poll of every machine
// open, takes commands on its standard input and tells when each answer's last byte came.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

type options struct {
	target      *url.URL
	machines    []*machine
	info        string
	connections int
	seconds     time.Duration
	warm        time.Duration
	rounds      int
	echo        bool
	pause       time.Duration
	hold        time.Duration
	report      bool
}

func main() {
	if len(os.Args) < 2 || (os.Args[1] != "closed" && os.Args[1] != "held") {
		fail("usage: load closed|held -url URL -machines FILE [options]")
	}
	asked := read(os.Args[2:])
	if os.Args[1] == "closed" {
		runClosed(asked)
		return
	}
	runHeld(asked)
}

func read(arguments []string) options {
	var asked options
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	address := flags.String("url", "", "the server")
	machines := flags.String("machines", "", "a file with a token and a system ID on each line")
	info := flags.String("info", "", "a file with the JSON that machines tell of themselves")
	flags.IntVar(&asked.connections, "connections", 64, "closed: connections that poll at the same time")
	flags.DurationVar(&asked.seconds, "time", 10*time.Second, "closed: how long to count")
	flags.DurationVar(&asked.warm, "warm", time.Second, "closed: how long to poll before counting")
	flags.IntVar(&asked.rounds, "rounds", 0, "closed: poll once for each machine so many times, instead of -time")
	flags.BoolVar(&asked.echo, "echo", true, "send the last X-GitLab-Last-Update as last_update")
	flags.DurationVar(&asked.pause, "pause", 3*time.Second, "held: how long a machine waits after an answer")
	flags.DurationVar(&asked.hold, "hold", 50*time.Second, "held: how long the server holds")
	flags.BoolVar(&asked.report, "report", false, "held: report each job as done at once")
	_ = flags.Parse(arguments)
	target, err := url.Parse(*address)
	if err != nil || target.Scheme != "http" || target.Host == "" {
		fail("-url must be an http address such as http://127.0.0.1:8000")
	}
	if target.Port() == "" {
		target.Host += ":80"
	}
	asked.target = target
	asked.info = text(*info)
	asked.machines = fleet(text(*machines))
	return asked
}

func fleet(lines string) []*machine {
	var found []*machine
	scanner := bufio.NewScanner(strings.NewReader(lines))
	for scanner.Scan() {
		words := strings.Fields(scanner.Text())
		if len(words) == 2 {
			found = append(found, &machine{token: words[0], systemID: words[1]})
		}
	}
	if len(found) == 0 {
		fail("the file of machines is empty")
	}
	return found
}

func text(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		fail(err.Error())
	}
	return strings.TrimSpace(string(content))
}

func fail(sentence string) {
	fmt.Fprintln(os.Stderr, sentence)
	os.Exit(2)
}

// cpu is what this process has used of the machine's cores, in seconds.
func cpu() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}
