//go:build !failpoints

package failpoint

import "time"

// Enabled says whether this build has failpoints.
const Enabled = false

// Hit does nothing in this build.
func Hit(string) {}

// Now is the time of the machine in this build.
func Now() time.Time { return time.Now() }
