package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"
	"go.yaml.in/yaml/v3"
)

// document is the API in OpenAPI 3.1. The tests hold it to what the handlers do.
//
//go:embed openapi.yaml
var document []byte

// encodeOpenAPI gives the document as it is served.
func encodeOpenAPI() ([]byte, error) {
	var parsed map[string]any
	if err := yaml.Unmarshal(document, &parsed); err != nil {
		return nil, fmt.Errorf("making the API: reading openapi.yaml: %w", err)
	}
	encoded, err := json.Marshal(parsed)
	if err != nil {
		return nil, fmt.Errorf("making the API: encoding openapi.yaml: %w", err)
	}
	return encoded, nil
}

// getOpenAPI is open to all: it says nothing about what is here.
func (a *API) getOpenAPI(c *gin.Context) {
	c.Header("Cache-Control", "no-cache")
	write(c, http.StatusOK, a.openapi)
}
