// Victim passes all failpoints as often as its argument says, and tells before each one. With "now" it tells, a line each time it
// is given one, how far its clock is ahead of the machine's.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/harborseal/harborseal/pkg/failpoint"
)

func main() {
	if os.Args[1] == "now" {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			fmt.Println(time.Until(failpoint.Now()).Round(time.Second))
		}
		return
	}
	rounds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	// Somebody waits for something in every real program; without that the runtime would call a block a deadlock.
	go func() { _, _ = io.Copy(io.Discard, os.Stdin) }()
	for range rounds {
		for _, name := range failpoint.Names() {
			fmt.Println(name)
			failpoint.Hit(name)
		}
	}
	if len(os.Args) > 2 {
		failpoint.Hit(os.Args[2])
	}
	fmt.Println("end")
}
