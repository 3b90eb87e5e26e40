package tsa

import "bytes"

// maxNesting is how deep the parts of a timestamp may be nested. Those of real authorities have some 20 levels.
const maxNesting = 64

// isNested says whether each part of a response lies within the one around it, and not too deep. The library that reads the
// timestamp follows parts that reach beyond, reads what is behind them once more for each, and so takes for ever for some
// hundred bytes that anybody may have put beside a signature.
//
// SPEC: ITU-T X.690, section 8.1: the identifier, the length and the end of the contents. Lengths may be indefinite: RFC 5652
// asks for BER alone.
func isNested(response []byte) bool {
	length, ok := measure(response, maxNesting)
	return ok && length == len(response)
}

// measure gives the length of the element at the beginning of raw; false if it is not nested as it must be.
func measure(raw []byte, depth int) (length int, ok bool) {
	start, content, ok := readHeader(raw)
	if !ok || depth == 0 {
		return 0, false
	}
	constructed, indefinite := raw[0]&0x20 != 0, content < 0
	inside := raw[start:]
	if !indefinite {
		if content > len(inside) {
			return 0, false
		}
		inside = inside[:content]
	}
	if !constructed {
		return start + content, !indefinite
	}
	at := 0
	for {
		rest := inside[at:]
		switch {
		case indefinite && at > 0 && bytes.HasPrefix(rest, []byte{0, 0}):
			return start + at + 2, true
		case !indefinite && len(rest) == 0:
			return start + content, true
		}
		n, ok := measure(rest, depth-1)
		if !ok {
			return 0, false
		}
		at += n
	}
}

// readHeader gives where the contents of an element start and how long they are; -1 for an indefinite length. The identifier
// of the end of contents is none of an element.
func readHeader(raw []byte) (start, content int, ok bool) {
	if len(raw) < 2 || raw[0] == 0 {
		return 0, 0, false
	}
	start = 1
	if raw[0]&0x1f == 0x1f {
		for start < len(raw) && raw[start] >= 0x80 {
			start++
		}
		start++
	}
	if start >= len(raw) {
		return 0, 0, false
	}
	first := raw[start]
	start++
	switch {
	case first < 0x80:
		return start, int(first), true
	case first == 0x80:
		return start, -1, true
	}
	more := int(first & 0x7f)
	if more > 3 || start+more > len(raw) { // 3 are enough for the longest response
		return 0, 0, false
	}
	for _, b := range raw[start : start+more] {
		content = content<<8 | int(b)
	}
	return start + more, content, true
}
