package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// tmpSuffix marks a file that was being written when the process ended. It counts for nothing and is overwritten.
const tmpSuffix = ".tmp"

// WriteFileAtomic replaces path by a file with this content and mode. After it returns nil the content survives a power
// loss; if it fails, or the power does, path is as before or as wanted, never in between. Two calls for one path must not
// overlap. The folder must exist.
func WriteFileAtomic(path string, content []byte, mode os.FileMode) error {
	err := writeTmp(path+tmpSuffix, content, mode)
	if err == nil {
		err = os.Rename(path+tmpSuffix, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeTmp(tmp string, content []byte, mode os.FileMode) error {
	// Removed first, so that the mode is the wanted one from the beginning.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// mkdir creates a folder that only its owner may enter, and makes its name in the parent survive a power loss.
func mkdir(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, os.ErrExist) {
		st, serr := os.Stat(path)
		if serr != nil {
			return serr
		}
		if !st.IsDir() {
			return fmt.Errorf("%s is not a folder", path)
		}
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// mkdirAll is mkdir for path and all above it.
func mkdirAll(path string) error {
	if parent := filepath.Dir(path); parent != path {
		if _, err := os.Stat(parent); errors.Is(err, os.ErrNotExist) {
			if err := mkdirAll(parent); err != nil {
				return err
			}
		}
	}
	return mkdir(path)
}
