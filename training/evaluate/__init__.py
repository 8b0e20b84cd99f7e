"""How good a model is: judged case by case on patients that it has not seen, told with intervals and pictures."""
