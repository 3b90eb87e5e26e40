package queue

import (
	"fmt"
	"syscall"
)

// storeShare is how much of its volume the store may fill, in percent: the rest is for what the server writes beside the
// messages, and for what else lies there.
const storeShare = 80

// checkVolume refuses a store that could fill its volume: the server's limit is a clean refusal of the next message, a full
// disk breaks the streams until JetStream is restarted. The folder exists. Other programs may fill the volume all the same.
func (cfg ServerConfig) checkVolume() error {
	if cfg.MaxStore == 0 {
		return nil // The server takes a share of what is free.
	}
	size := volumeSize
	if cfg.volumeSize != nil {
		size = cfg.volumeSize
	}
	volume, err := size(cfg.StoreDir)
	if err != nil {
		return fmt.Errorf("asking for the size of the volume of %s: %w", cfg.StoreDir, err)
	}
	// Some file systems do not tell.
	if limit := volume / 100 * storeShare; volume > 0 && cfg.MaxStore > limit {
		return fmt.Errorf("max_store is %d bytes, but the volume of %s has %d: set max_store to at most %d (%d %%), or take a larger volume",
			cfg.MaxStore, cfg.StoreDir, volume, limit, storeShare)
	}
	return nil
}

// volumeSize gives the size of the volume of a folder, in bytes.
func volumeSize(dir string) (int64, error) {
	_, size, err := volumeRoom(dir)
	return size, err
}

// volumeRoom gives what is free on the volume of a folder for who is not root, and its size, in bytes.
func volumeRoom(dir string) (free, size int64, err error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return 0, 0, err
	}
	block := int64(stat.Bsize)                                         //nolint:unconvert // types differ between systems
	return int64(stat.Bavail) * block, int64(stat.Blocks) * block, nil //nolint:gosec // bytes of a disk fit into 63 bits
}
