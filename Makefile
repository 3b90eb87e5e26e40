# harborseal: `make` lists what there is.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Tools are built from source at pinned versions into a folder of the project; each file's name carries its version, so
# that a new version here is built and an old one stays out of the way.
TOOLS        := $(CURDIR)/.tools/bin
GOLANGCI     := $(TOOLS)/golangci-lint-v2.15.0
COSIGN_V2    := $(TOOLS)/cosign-v2.6.5
COSIGN_V3    := $(TOOLS)/cosign-v3.1.3
CRANE        := $(TOOLS)/crane-v0.22.1
REKOR        := $(TOOLS)/rekor-server-v1.5.4
TRILLIAN_LOG := $(TOOLS)/trillian_log_server-v1.7.3
TRILLIAN_SEQ := $(TOOLS)/trillian_log_signer-v1.7.3
REKOR_TILES  := $(TOOLS)/rekor-tiles-posix-v2.3.0
TSA          := $(TOOLS)/timestamp-server-v2.1.2
FULCIO       := $(TOOLS)/fulcio-v1.8.8
PROMTOOL     := $(TOOLS)/promtool-v0.315.0
E2E_TOOLS    := $(COSIGN_V2) $(COSIGN_V3) $(CRANE) $(REKOR) $(TRILLIAN_LOG) $(TRILLIAN_SEQ) $(REKOR_TILES) $(TSA) $(FULCIO)

export HARBORSEAL_TEST_COSIGN_V2 := $(COSIGN_V2)
export HARBORSEAL_TEST_COSIGN_V3 := $(COSIGN_V3)
export HARBORSEAL_TEST_CRANE     := $(CRANE)
export HARBORSEAL_TEST_REKOR     := $(REKOR)
export HARBORSEAL_TEST_TRILLIAN_LOG_SERVER := $(TRILLIAN_LOG)
export HARBORSEAL_TEST_TRILLIAN_LOG_SIGNER := $(TRILLIAN_SEQ)
export HARBORSEAL_TEST_REKOR_TILES := $(REKOR_TILES)
export HARBORSEAL_TEST_TSA       := $(TSA)
export HARBORSEAL_TEST_FULCIO    := $(FULCIO)
export CGO_ENABLED ?= 1

PKGS     := ./cmd/... ./pkg/... ./e2e/...
FUZZTIME ?= 30s

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-9s %s\n", $$1, $$2 }'

.PHONY: build
build: ## Build receiver and signer into bin/.
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/receiver ./cmd/signer

.PHONY: build-hsm
build-hsm: ## Build bin/signer-hsm, the signer with PKCS #11; it needs gcc.
	CGO_ENABLED=1 go build -trimpath -tags pkcs11 -o bin/signer-hsm ./cmd/signer

.PHONY: demo
demo: $(COSIGN_V3) ## Push images into an emulated Harbor and find them signed. KEEP=1 leaves it running.
	@go run ./e2e/demo $(if $(KEEP),-keep)

.PHONY: test
test: ## Run the tests of all packages, with the race detector and in random order.
	go test -race -shuffle=on $(PKGS)
	go test -race -shuffle=on -tags pkcs11 -run PKCS11 ./pkg/sigstore/keys

.PHONY: e2e
e2e: $(E2E_TOOLS) ## Run the whole-system tests; HARBOR_URL and friends aim them at a real Harbor.
	cd e2e && go test -tags e2e -shuffle=on -count=1 -timeout $(if $(HARBOR_URL),90m,30m) . ./harness

.PHONY: e2e-full
e2e-full: $(E2E_TOOLS) ## Run the whole-system tests in their long forms: all faults, all crashes.
	cd e2e && HARBORSEAL_E2E_FULL=1 go test -tags e2e -shuffle=on -count=1 -timeout $(if $(HARBOR_URL),180m,90m) . ./harness

.PHONY: chaos
chaos: $(COSIGN_V2) $(REKOR_TILES) ## Break everything by a schedule, then look for what was lost: SEED=, DURATION= (10m), or HISTORY= of a run.
	@go run ./e2e/chaos $(if $(SEED),-seed $(SEED)) $(if $(DURATION),-duration $(DURATION)) $(if $(HISTORY),-history $(HISTORY))

.PHONY: alerts
alerts: $(PROMTOOL) ## Check the alert rules in deploy/alerts, and run their tests.
	$(PROMTOOL) check rules deploy/alerts/*.rules.yaml
	$(PROMTOOL) test rules deploy/alerts/*.test.yaml

.PHONY: lint
lint: $(GOLANGCI) ## Run the linters and the format check.
	$(GOLANGCI) run ./...
	$(GOLANGCI) run --build-tags failpoints ./pkg/failpoint
	$(GOLANGCI) run --build-tags pkcs11,gcpkms,azurekms ./pkg/sigstore/keys

# Go 1.26 may report "context deadline exceeded" when FUZZTIME ends, without any finding (go.dev/issue/75804, mended in
# 1.27). A finding always writes its input; anything else but that message fails.
.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (default 30s).
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	grep -roE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' cmd pkg e2e | sed 's/:func / /' | sort | while read -r file target; do \
	  echo "== $$target ($${file%/*})"; \
	  if ! go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime=10x "./$${file%/*}" 2>&1 | tee "$$log"; then \
	    grep -qx ' *context deadline exceeded' "$$log" || exit 1; \
	    ! grep -qE 'Failing input|panic:|_test.go:' "$$log" || exit 1; \
	    echo "   the end of FUZZTIME met Go issue 75804: no finding"; \
	  fi; \
	done

.PHONY: bench
bench: $(E2E_TOOLS) ## Measure; a table with rates and ratios.
	@go run ./e2e/bench

.PHONY: tools
tools: $(GOLANGCI) $(E2E_TOOLS) $(PROMTOOL) ## Build the tools that lint, alerts and e2e need into .tools/bin.

# $(call install,module path,name of the built program)
define install
	@echo "building $(notdir $@)" >&2
	@mkdir -p $(TOOLS)/tmp-$(notdir $@)
	@GOBIN=$(TOOLS)/tmp-$(notdir $@) GOFLAGS= CGO_ENABLED=0 go install $(1)
	@mv $(TOOLS)/tmp-$(notdir $@)/$(2) $@ && rmdir $(TOOLS)/tmp-$(notdir $@)
endef

$(GOLANGCI):
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0,golangci-lint)
$(COSIGN_V2):
	$(call install,github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5,cosign)
$(COSIGN_V3):
	$(call install,github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3,cosign)
$(CRANE):
	$(call install,github.com/google/go-containerregistry/cmd/crane@v0.22.1,crane)
$(REKOR):
	$(call install,github.com/sigstore/rekor/cmd/rekor-server@v1.5.4,rekor-server)
$(TRILLIAN_LOG):
	$(call install,github.com/google/trillian/cmd/trillian_log_server@v1.7.3,trillian_log_server)
$(TRILLIAN_SEQ):
	$(call install,github.com/google/trillian/cmd/trillian_log_signer@v1.7.3,trillian_log_signer)
$(REKOR_TILES):
	$(call install,github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix@v2.3.0,posix)
$(TSA):
	$(call install,github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server@v2.1.2,timestamp-server)
$(FULCIO):
	$(call install,github.com/sigstore/fulcio@v1.8.8,fulcio)
# Its go.mod has replacements, which go install refuses: a module that requires it is built instead.
$(PROMTOOL):
	@echo "building $(notdir $@)" >&2
	@mkdir -p $(TOOLS)/tmp-promtool
	@cd $(TOOLS)/tmp-promtool && rm -f go.mod go.sum && go mod init tool 2>/dev/null && \
	  GOFLAGS= go get github.com/prometheus/prometheus/cmd/promtool@v0.315.0 2>/dev/null && \
	  GOFLAGS= CGO_ENABLED=0 go build -o $@ github.com/prometheus/prometheus/cmd/promtool
	@rm -r $(TOOLS)/tmp-promtool
