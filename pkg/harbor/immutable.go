package harbor

import (
	"context"
	"fmt"
	"strings"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/immutable"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"
)

// ImmutableRules gives the enabled immutability rules of a project in Harbor's order, each in one line for people: "rule 1:
// tags matching ** in repositories matching **". The robot account needs immutable-tag:list: the fault is Denied without
// it.
func (c *Client) ImmutableRules(ctx context.Context, name string) ([]string, error) {
	var rules []string
	err := c.eachPage(ctx, func(ctx context.Context, page int64) (int, int64, error) {
		params := immutable.NewListImmuRulesParams().WithTimeout(c.timeout).WithProjectNameOrID(name).WithXIsResourceName(isName()).
			WithPage(&page).WithPageSize(&c.pageSize)
		answer, err := c.api.Immutable.ListImmuRules(ctx, params)
		if err != nil {
			return 0, 0, c.wrap("listing the immutability rules", err)
		}
		if err := complete(answer.Payload); err != nil {
			return 0, 0, c.wrap("listing the immutability rules", err)
		}
		for _, rule := range answer.Payload {
			if !rule.Disabled {
				rules = append(rules, c.redactor.Text(ruleText(rule), maxText))
			}
		}
		return len(answer.Payload), answer.XTotalCount, nil
	})
	return rules, err
}

// ruleText puts a rule into words. All of its selectors must match.
//
// SPEC: recorded rules of Harbor 2.15: decorations are "matches" and "excludes" for tags, "repoMatches" and "repoExcludes"
// for repositories; patterns are those of doublestar.
func ruleText(rule *models.ImmutableRule) string {
	var tags, repositories []string
	for _, selector := range rule.TagSelectors {
		if selector != nil {
			tags = append(tags, selectorText(*selector))
		}
	}
	for _, selector := range rule.ScopeSelectors["repository"] {
		repositories = append(repositories, selectorText(selector))
	}
	return fmt.Sprintf("rule %d: tags%s in repositories%s", rule.ID, strings.Join(tags, " and"), strings.Join(repositories, " and"))
}

func selectorText(selector models.ImmutableSelector) string {
	words := selector.Decoration
	switch words {
	case "matches", "repoMatches":
		words = "matching"
	case "excludes", "repoExcludes":
		words = "not matching"
	}
	return " " + words + " " + selector.Pattern
}
