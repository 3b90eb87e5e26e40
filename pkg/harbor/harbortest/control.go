package harbortest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

const controlPrefix = "/_emulator/"

// serveControl answers under /_emulator/, whoever asks:
//
//	GET, PUT    faults      the injected faults; PUT replaces those with names, too
//	GET, PUT    faults/NAME the injected faults of a name (SetFault); PUT leaves the others; {} ends them
//	GET, PUT    version     the emulated version
//	GET         stats       counters
//	POST        synthetic   Synthesize; answers what it made
//	GET         synthetic   all synthetic artifacts, one JSON object a line
//	POST        touch       Touch; answers what it did
//	PUT         login       SetLogin
//	DELETE      audit       PurgeAudit
//
// Bodies are JSON, and an unknown key is an error, so that a typing error does something loud instead of nothing.
func (h *Harbor) serveControl(w http.ResponseWriter, r *http.Request) {
	if name, named := strings.CutPrefix(r.URL.Path, controlPrefix+"faults/"); named && name != "" {
		h.serveFault(w, r, name)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET " + controlPrefix + "faults":
		h.answerControl(w, h.CurrentFaults())
	case "PUT " + controlPrefix + "faults":
		var f Faults
		if readControl(w, r, "faults", &f) {
			h.SetFaults(f)
			h.answerControl(w, f)
		}
	case "GET " + controlPrefix + "version":
		h.answerControl(w, versionJSON{Version: h.Version()})
	case "PUT " + controlPrefix + "version":
		var in versionJSON
		if readControl(w, r, "the version", &in) {
			h.SetVersion(in.Version)
			h.answerControl(w, versionJSON{Version: h.Version()})
		}
	case "GET " + controlPrefix + "stats":
		h.answerControl(w, h.Stats())
	case "POST " + controlPrefix + "synthetic":
		doControl(h, w, r, h.Synthesize)
	case "GET " + controlPrefix + "synthetic":
		h.listSynthetic(w)
	case "POST " + controlPrefix + "touch":
		doControl(h, w, r, h.Touch)
	case "PUT " + controlPrefix + "login":
		doControl(h, w, r, func(l Login) (Login, error) { return l, h.SetLogin(l) })
	case "DELETE " + controlPrefix + "audit":
		h.PurgeAudit()
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "the control surface has faults and faults/NAME (GET, PUT), version (GET, PUT), stats (GET), synthetic (GET, POST), "+
			"touch (POST), login (PUT) and audit (DELETE)", http.StatusNotFound)
	}
}

// serveFault reads or replaces the faults of a name.
func (h *Harbor) serveFault(w http.ResponseWriter, r *http.Request, name string) {
	switch r.Method {
	case http.MethodGet:
		h.answerControl(w, h.CurrentFault(name))
	case http.MethodPut:
		var f Faults
		if readControl(w, r, "faults", &f) {
			h.SetFault(name, f)
			h.answerControl(w, f)
		}
	default:
		http.Error(w, "faults of a name have GET and PUT", http.StatusMethodNotAllowed)
	}
}

// doControl runs what takes a value and answers another.
func doControl[In, Out any](h *Harbor, w http.ResponseWriter, r *http.Request, do func(In) (Out, error)) {
	var in In
	if !readControl(w, r, r.URL.Path, &in) {
		return
	}
	out, err := do(in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	h.answerControl(w, out)
}

// readControl reads a body, or refuses it.
func readControl(w http.ResponseWriter, r *http.Request, what string, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAPIBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		http.Error(w, fmt.Sprintf("reading %s: %v", what, err), http.StatusBadRequest)
		return false
	}
	return true
}

func (h *Harbor) answerControl(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		h.log.Debug().Err(err).Msg("client went away")
	}
}

func (h *Harbor) listSynthetic(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	encoder := json.NewEncoder(w)
	for a := range h.SyntheticArtifacts() {
		if err := encoder.Encode(a); err != nil {
			h.log.Debug().Err(err).Msg("client went away")
			return
		}
	}
}
