//go:build !pkcs11 || !cgo

package keys

import "errors"

const pkcs11Built = false

func openPKCS11(PKCS11Options) (remote, error) {
	return nil, errors.New("this program was built without PKCS #11: take one that was built with the tag pkcs11 and CGO")
}
