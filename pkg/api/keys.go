package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/harborseal/harborseal/pkg/pubkey"
)

// KeyState is what a key is still good for.
type KeyState string

// The states of keys.
const (
	KeyActive     KeyState = "active"      // signs
	KeyVerifyOnly KeyState = "verify-only" // signs no more; its signatures hold
	KeyRevoked    KeyState = "revoked"     // its signatures hold no more
)

// Key is a public key.
type Key struct {
	// ID is the lower-case hexadecimal SHA-256 of the SubjectPublicKeyInfo. It is computed; where it is given, it must agree.
	ID string `json:"id"`
	// Name is what people call the key.
	Name string `json:"name"`
	// State is [KeyActive] if it is empty.
	State KeyState `json:"state"`
	// PEM is one block of type PUBLIC KEY.
	PEM string `json:"pem"`
}

// getKeys is open to all: whoever verifies signatures needs the keys, and they are no secret.
func (a *API) getKeys(c *gin.Context) {
	c.Header("Cache-Control", "no-cache")
	write(c, http.StatusOK, a.keys)
}

// encodeKeys checks the keys and gives the answer, and those that sign. It refuses what is no public key, so that a private key in the wrong
// place is never published, and what the signer would not verify with.
func encodeKeys(keys []Key) (answer []byte, active []Key, err error) {
	listed := make([]Key, 0, len(keys))
	var errs []error
	for i, key := range keys {
		checked, err := checkKey(key)
		if err != nil {
			errs = append(errs, fmt.Errorf("making the API: keys[%d]: %w", i, err))
		}
		listed = append(listed, checked)
		if checked.State == KeyActive {
			active = append(active, checked)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	answer, err = json.Marshal(listed)
	return answer, active, err
}

func checkKey(key Key) (Key, error) {
	parsed, err := pubkey.Parse([]byte(key.PEM))
	if err != nil {
		return Key{}, err
	}
	if key.ID != "" && key.ID != parsed.ID {
		return Key{}, errors.New("the id is not the SHA-256 of the key")
	}
	switch key.State {
	case "":
		key.State = KeyActive
	case KeyActive, KeyVerifyOnly, KeyRevoked:
	default:
		return Key{}, fmt.Errorf("state %.32q is not one of %s, %s, %s", key.State, KeyActive, KeyVerifyOnly, KeyRevoked)
	}
	// Encoded anew: text before the block is not published either.
	key.ID, key.PEM = parsed.ID, parsed.PEM
	return key, nil
}
