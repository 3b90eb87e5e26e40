package telemetry

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry makes a registry that has the metrics of the Go runtime and of the process, and harborseal_build_info, whose
// value is 1 and whose labels are the program's version and that of Go.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	// A fresh registry refuses none of these.
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "harborseal_build_info",
			Help:        "What is running. The value is 1.",
			ConstLabels: prometheus.Labels{"version": Version(), "go_version": runtime.Version()},
		}, func() float64 { return 1 }),
	)
	return r
}

// Version is the module's version where the program was installed as a module, else the revision that it was built from,
// with "-dirty" where the tree differed from it, else "devel".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unversioned
	}
	return versionOf(info)
}

const unversioned = "devel"

func versionOf(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return strings.TrimPrefix(v, "v")
	}
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if revision == "" {
		return unversioned
	}
	version := revision[:min(12, len(revision))]
	if settings["vcs.modified"] == "true" {
		version += "-dirty"
	}
	return version
}
