// Package config reads the configuration of both programs: a YAML file, overridden by environment variables.
//
// It is strict. A key or a HARBORSEAL_ variable that no field stands for is an error, so is a value of another type, and
// all errors are reported at once, each with its path ("harbor.url: is required"). Durations are written as Go writes
// them ("90s", "5m", "24h"), sizes as bytes or with a unit ("512MiB", "8GiB"). A key without a value, or with null, has
// its default. Defaults are applied before the whole is checked.
//
// # Environment
//
// Every key can be overridden. The variable is HARBORSEAL_ and the path in upper case with underscores:
// HARBORSEAL_HARBOR_URL stands for harbor.url. Lists of text are separated by commas and replace the file's list; an
// empty variable makes an empty list; so do mappings of texts, written as key=value. An entry of a list of mappings is named by its number, counted from 0:
// HARBORSEAL_KEYS_0_FILE stands for keys[0].file; it changes that entry of the file, or adds the entry that follows the
// last one. Variables that Kubernetes makes for a service called "harborseal…" (…_SERVICE_HOST, …_PORT_8080_TCP_ADDR and
// so on) are left alone, and so are those of package failpoint (HARBORSEAL_FAILPOINT…, HARBORSEAL_CLOCK_FILE).
//
// # Files and secrets
//
// A relative path, from the file or from a variable, is relative to the folder of the configuration file. Secrets are
// paths of files, never values: no key takes a password, a token or a private key, and an address must not carry one.
// This package opens the configuration file alone; [CheckFiles] asks whether the others can be opened, without reading
// them. An error names paths of keys and what is wanted there, never a value that was found.
package config
