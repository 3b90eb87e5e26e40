package config

import (
	"os"
	"reflect"
)

// CheckFiles tells which of the files that a *[Receiver] or a *[Signer] names cannot be opened, each with the path of its
// key. It reads none of them, and asks nothing about what the program makes itself.
func CheckFiles[C Receiver | Signer](c *C) error {
	var p problems
	checkFiles("", reflect.ValueOf(c).Elem(), &p)
	return p.err()
}

func checkFiles(path string, v reflect.Value, p *problems) {
	for f := range fields(v.Type()) {
		at, value := join(path, f.key), v.FieldByIndex(f.index)
		switch target := value.Interface().(type) {
		case string:
			if f.option == optionFile && target != "" {
				checkFile(at, target, p)
			}
		case []string:
			for i, name := range target {
				if f.option == optionFile {
					checkFile(entry(at, i), name, p)
				}
			}
		default:
			switch {
			case f.mapping():
				checkFiles(at, value, p)
			case f.list():
				for i := range value.Len() {
					checkFiles(entry(at, i), value.Index(i), p)
				}
			}
		}
	}
}

func checkFile(path, name string, p *problems) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		p.add(path, "%s", err)
	case info.IsDir():
		p.add(path, "%s is a folder", name)
	case info.Mode().IsRegular():
		// Anything else, such as a named pipe, is for one reader only.
		f, err := os.Open(name) //nolint:gosec // the operator names the file
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			p.add(path, "%s", err)
		}
	}
}
