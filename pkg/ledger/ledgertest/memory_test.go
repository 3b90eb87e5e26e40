package ledgertest_test

import (
	"testing"

	"github.com/harborseal/harborseal/pkg/ledger/ledgertest"
)

func TestMemory(t *testing.T) {
	ledgertest.TestView(t, func(*testing.T) ledgertest.View { return &ledgertest.Memory{} })
}
