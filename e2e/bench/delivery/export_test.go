package delivery

import "github.com/harborseal/harborseal/pkg/harbor/harbortest"

// Invented is a digest that is in no registry.
func Invented(project string, i int) harbortest.SyntheticRef { return invented(project, i) }
