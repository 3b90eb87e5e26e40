// Victim passes all failpoints as often as its argument says, and tells before each one.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/harborseal/harborseal/pkg/failpoint"
)

func main() {
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
